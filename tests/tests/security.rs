//! `docs/security.md` has the limits of the code.

use std::fs;
use std::path::Path;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The texts in backticks of a line.
fn code(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_documented_constant_has_its_value() {
    let page = read("docs/security.md");
    let rows: Vec<Vec<&str>> =
        page.lines().map(code).filter(|row| row.iter().any(|text| text.ends_with(".rs"))).collect();
    assert!(rows.len() >= 20, "{}", rows.len());
    for row in rows {
        let [value, file, name] = row[..] else { panic!("{row:?}") };
        let source = read(file);
        let declared = source.lines().find(|line| line.contains(&format!("const {name}: ")));
        let declared = declared.unwrap_or_else(|| panic!("`{name}` is not in `{file}`"));
        assert!(declared.ends_with(&format!("= {value};")), "{row:?}: {declared}");
    }
}

#[test]
fn every_documented_option_exists_with_its_default() {
    let (page, reference) = (read("docs/security.md"), read("docs/cli.md"));
    let mut defaults = 0;
    for line in page.lines().filter(|line| line.starts_with("| ")) {
        for option in code(line).into_iter().filter(|text| text.starts_with("--")) {
            let help = reference.lines().find(|help| help.starts_with(&format!("- `{option} <")));
            let help = help.unwrap_or_else(|| panic!("`{option}` is not an option"));
            let after = line.split_once(&format!("`{option}` (")).map(|(_, after)| after);
            // Of the defaults that are numbers; others are sentences.
            let number = after.and_then(|after| after.split([' ', ',', ')']).next());
            let Some(number) = number.filter(|text| text.parse::<f64>().is_ok()) else { continue };
            assert!(
                help.contains(&format!("[default: `{number}`]"))
                    || help.contains(&format!("[default: {number}]")),
                "{option} {number}: {help}"
            );
            defaults += 1;
        }
    }
    assert!(defaults >= 8, "{defaults}");
}
