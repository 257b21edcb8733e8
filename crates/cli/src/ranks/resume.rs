//! `--resume` on the command line of a job that is restarted.

use std::ffi::OsString;

/// The command line with `--resume=auto` in place of any `--resume`: resumes from the last checkpoint in the run's own
/// folder.
pub(super) fn with_auto(args: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let text = arg.to_string_lossy();
        if text == "--resume" {
            // Its optional value, by the parser's rule.
            args.next_if(|next| !next.to_string_lossy().starts_with('-'));
        } else if !text.starts_with("--resume=") {
            kept.push(arg.clone());
        }
    }
    kept.push("--resume=auto".into());
    kept
}

/// Whether a command line has `--resume`.
pub(super) fn is_in(args: &[OsString]) -> bool {
    let is_resume = |text: &str| text == "--resume" || text.starts_with("--resume=");
    args.iter().any(|arg| is_resume(&arg.to_string_lossy()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn resume_is_replaced_by_resume_auto() {
        for given in ["train --resume runs/a --set a=1", "train --resume --set a=1"] {
            assert_eq!(with_auto(&args(given)), args("train --set a=1 --resume=auto"), "{given}");
        }
        let given = args("train --resume=runs/a --ranks 2");
        assert!(is_in(&given));
        assert_eq!(with_auto(&given), args("train --ranks 2 --resume=auto"));
        assert!(!is_in(&args("train --output resume")));
    }
}
