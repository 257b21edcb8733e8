//! One check, and the table of checks.

use std::fmt::Write as _;

use serde::Serialize;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    /// Passed.
    Ok,
    /// Informational.
    Note,
    /// Some commands will fail or be slow.
    Warning,
    /// Required, but missing.
    Missing,
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    /// The group in the table.
    pub(super) area: &'static str,
    /// What is checked.
    pub(super) name: String,
    pub(super) state: State,
    /// What was found.
    pub(super) found: String,
    /// How to fix it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

impl Check {
    fn new(area: &'static str, name: &str, state: State, found: String) -> Self {
        Self { area, name: name.to_owned(), state, found, advice: None }
    }

    pub(super) fn ok(area: &'static str, name: &str, found: impl Into<String>) -> Self {
        Self::new(area, name, State::Ok, found.into())
    }

    pub(super) fn note(area: &'static str, name: &str, found: impl Into<String>) -> Self {
        Self::new(area, name, State::Note, found.into())
    }

    pub(super) fn warning(
        area: &'static str,
        name: &str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(area, name, State::Warning, found.into()) }
    }

    pub(super) fn missing(
        area: &'static str,
        name: &str,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self { advice: Some(advice.into()), ..Self::new(area, name, State::Missing, found.into()) }
    }
}

/// The checks as text, grouped by area, each with its advice below, and a summary.
pub(super) fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    let mut area = "";
    for check in checks {
        if check.area != area {
            let gap = if area.is_empty() { "" } else { "\n" };
            area = check.area;
            let _ = writeln!(text, "{gap}{area}");
        }
        let mark = match check.state {
            State::Ok => "ok",
            State::Note => "-",
            State::Warning => "warning",
            State::Missing => "MISSING",
        };
        let _ = writeln!(text, "  {mark:<8} {:<width$}  {}", check.name, check.found);
        if let Some(advice) = &check.advice {
            let _ = writeln!(text, "           -> {advice}");
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let summary = match (count(State::Missing), count(State::Warning)) {
        (0, 0) => "all checks passed".to_owned(),
        (0, warnings) => format!("nothing required is missing; warnings: {warnings}"),
        (missing, warnings) => format!("required but missing: {missing}; warnings: {warnings}"),
    };
    let _ = writeln!(text, "\n{summary}");
    text
}

/// Bytes in binary units, such as `12.3 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_binary_units() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(24 << 30), "24.0 GiB");
    }

    #[test]
    fn the_table_shows_advice_below_its_check_and_counts_missing_items() {
        let checks = [
            Check::ok("video", "ffmpeg", "5.1"),
            Check::missing("video", "ffprobe", "not found", "install it"),
            Check::warning("machine", "memory", "1.0 GiB", "use more"),
        ];
        assert_eq!(
            table(&checks),
            "video\n  ok       ffmpeg   5.1\n  MISSING  ffprobe  not found\n           -> install it\n\
             \nmachine\n  warning  memory   1.0 GiB\n           -> use more\n\
             \nrequired but missing: 1; warnings: 1\n"
        );
    }
}
