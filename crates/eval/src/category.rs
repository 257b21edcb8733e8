//! The names of questions' categories.

/// What a category is called in reports and messages; questions may have none.
pub(crate) fn category_name(category: &str) -> &str {
    if category.is_empty() { "(none)" } else { category }
}
