//! Slurm's compressed lists of counts per node.

/// The count of node `node` in a list such as `2(x3),1`, which means 2, 2, 2, 1.
pub(super) fn tasks_of_node(list: &str, node: usize) -> Option<usize> {
    let mut before = 0usize;
    for item in list.split(',') {
        let (count, times) = match item.split_once("(x") {
            Some((count, times)) => (count, times.strip_suffix(')')?.parse().ok()?),
            None => (item, 1),
        };
        before = before.checked_add(times)?;
        if node < before {
            return count.trim().parse().ok();
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_counts_are_expanded() {
        let counts: Vec<_> = (0..5).map(|node| tasks_of_node("2(x3),1", node)).collect();
        assert_eq!(counts, [Some(2), Some(2), Some(2), Some(1), None]);
    }

    #[test]
    fn a_malformed_list_is_none() {
        for text in ["", "a", "2(x", "2(x)", "(x3)"] {
            assert_eq!(tasks_of_node(text, 0), None, "{text}");
        }
    }
}
