//! Where in a settings file a value is.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

/// The line of each key and each table of a list in `text`, by path, such as `stage[1].weights`.
pub(super) fn of(table: &DeTable<'_>, text: &str, file: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut add = |path: &str, start: usize| {
        let line = text[..start].matches('\n').count() + 1;
        found.insert(path.to_owned(), format!("line {line} of `{}`", file.display()));
    };
    in_table("", table, &mut add);
    found
}

fn in_table(prefix: &str, table: &DeTable<'_>, add: &mut dyn FnMut(&str, usize)) {
    for (key, value) in table.iter() {
        let path = match prefix {
            "" => key.get_ref().to_string(),
            prefix => format!("{prefix}.{}", key.get_ref()),
        };
        add(&path, key.span().start);
        in_value(&path, value.get_ref(), add);
    }
}

fn in_value(path: &str, value: &DeValue<'_>, add: &mut dyn FnMut(&str, usize)) {
    match value {
        DeValue::Table(table) => in_table(path, table, add),
        DeValue::Array(list) => {
            for (index, item) in list.iter().enumerate() {
                let path = format!("{path}[{index}]");
                add(&path, item.span().start);
                in_value(&path, item.get_ref(), add);
            }
        }
        _ => {}
    }
}

/// The location in `locations` that is nearest to what `fault` names, a path in backticks at its start: that of the path,
/// or of the table or list around it; else that of the setting `key`.
pub(super) fn nearest<'a>(
    locations: &'a BTreeMap<String, String>,
    key: &str,
    fault: &str,
) -> &'a str {
    let named = fault.strip_prefix('`').and_then(|rest| rest.split('`').next());
    let mut path = named.filter(|path| path.starts_with(key)).unwrap_or(key);
    loop {
        if let Some(location) = locations.get(path) {
            return location;
        }
        match path.rfind(['.', '[']) {
            Some(end) => path = &path[..end],
            None => return "",
        }
    }
}
