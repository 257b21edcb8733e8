//! `--resume` on the command line of a job that is restarted.

use std::ffi::OsString;

/// The command line with which a run is restarted, given the step of its last checkpoint.
pub(super) fn of_restart(args: &[OsString], step: Option<u64>) -> Vec<OsString> {
    match step {
        // A run that resumes from elsewhere does so again until it has a checkpoint of its own.
        None if is_in(args) => args.to_owned(),
        _ => with_auto(args),
    }
}

/// The command line with `--resume=auto` in place of any `--resume`: resumes from the last checkpoint in the run's own
/// folder.
fn with_auto(args: &[OsString]) -> Vec<OsString> {
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
fn is_in(args: &[OsString]) -> bool {
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

    #[test]
    fn a_run_that_resumes_from_elsewhere_does_so_until_it_has_a_checkpoint() {
        let given = args("train --resume runs/a --output runs/b");
        assert_eq!(of_restart(&given, None), given);
        let auto = args("train --output runs/b --resume=auto");
        assert_eq!(of_restart(&given, Some(4)), auto);
        assert_eq!(of_restart(&args("train --output runs/b"), None), auto);
    }
}
