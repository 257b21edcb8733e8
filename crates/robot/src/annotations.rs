//! Plans and subtasks of demonstrations, in a file of JSON lines.

use std::collections::BTreeMap;
use std::path::Path;

use embodied_r_files::read_text;
use serde::{Deserialize, Serialize};

use crate::demonstration::{Annotation, AnnotationKind, Demonstration};
use crate::error::{Error, Result};

/// The name of the file in the folder of a data set.
pub const ANNOTATIONS: &str = "annotations.jsonl";

/// A line: what is said about an episode.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EpisodeAnnotations {
    /// The episode.
    pub episode_index: usize,
    /// The steps of the task, in order.
    #[serde(default)]
    pub plan: Vec<String>,
    /// The steps with the frames from which on they are being done.
    #[serde(default)]
    pub subtasks: Vec<Subtask>,
}

/// A step that is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subtask {
    /// The first frame of the step.
    pub frame_index: usize,
    /// What is done.
    pub text: String,
}

/// Reads annotations and gives them to their demonstrations.
///
/// # Errors
/// The file cannot be read, or a line is no [`EpisodeAnnotations`], is about an episode that does not exist or that another
/// line is about, or about a frame beyond the episode; with its number.
pub fn annotate(demonstrations: &mut [Demonstration], path: &Path) -> Result<()> {
    let text = read_text(path)?;
    let mut of_episode: BTreeMap<usize, &mut Demonstration> =
        demonstrations.iter_mut().map(|it| (it.episode, it)).collect();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.trim().is_empty()) {
        let fault = |reason: String| Error::Annotation { path: path.into(), line: number, reason };
        let EpisodeAnnotations { episode_index, plan, subtasks } =
            serde_json::from_str(line).map_err(|error| fault(format!("is unusable: {error}")))?;
        let Some(demonstration) = of_episode.remove(&episode_index) else {
            let what = "is of an episode that does not exist or has a line already";
            return Err(fault(format!("{what}: `episode_index` is {episode_index}")));
        };
        if let Some(beyond) = subtasks.iter().find(|it| it.frame_index >= demonstration.frames()) {
            let frames = demonstration.frames();
            let frame = beyond.frame_index;
            return Err(fault(format!(
                "is of a frame that does not exist: `frame_index` is {frame}, episode {episode_index} has {frames} frames"
            )));
        }
        if !plan.is_empty() {
            let steps = (1..).zip(&plan).map(|(number, step)| format!("{number}. {}", step.trim()));
            demonstration.annotations.push(Annotation {
                frame: 0,
                kind: AnnotationKind::Plan,
                text: steps.collect::<Vec<_>>().join(" "),
            });
        }
        demonstration.annotations.extend(subtasks.into_iter().map(|subtask| Annotation {
            frame: subtask.frame_index,
            kind: AnnotationKind::Subtask,
            text: subtask.text,
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::demonstration;

    const LINE: &str = r#"{"episode_index": 1, "plan": ["Reach the button.", "Push it."],
        "subtasks": [{"frame_index": 0, "text": "Reach the button."}, {"frame_index": 9, "text": "Push it."}]}"#;

    fn annotated(text: &str) -> Result<Vec<Demonstration>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ANNOTATIONS);
        std::fs::write(&path, text).unwrap();
        let mut demonstrations = vec![demonstration(0, 0), demonstration(0, 1)];
        annotate(&mut demonstrations, &path)?;
        Ok(demonstrations)
    }

    #[test]
    fn plans_and_subtasks_belong_to_their_episodes() {
        let line = LINE.replace('\n', " ");
        let [first, second] =
            <[_; 2]>::try_from(annotated(&format!("\n{line}\n")).unwrap()).unwrap();
        assert!(first.annotations.is_empty());
        let plan = second.annotation(AnnotationKind::Plan, 20);
        assert_eq!(plan, Some("1. Reach the button. 2. Push it."));
        let subtask = |frame| second.annotation(AnnotationKind::Subtask, frame);
        assert_eq!((subtask(8), subtask(9)), (Some("Reach the button."), Some("Push it.")));
    }

    #[test]
    fn faults_name_the_line() {
        let line = LINE.replace('\n', " ");
        for (from, to, expected) in [
            ("\"episode_index\": 1", "\"episode_index\": 2", "`episode_index` is 2"),
            ("\"frame_index\": 9", "\"frame_index\": 900", "`frame_index` is 900"),
            ("\"plan\"", "\"plans\"", "unknown field `plans`"),
            ("]}", "]", "is unusable"),
        ] {
            let error =
                annotated(&format!("\n{}", line.replace(from, to))).unwrap_err().to_string();
            assert!(error.contains("annotations.jsonl`: line 2"), "{error}");
            assert!(error.contains(expected), "{error}");
        }
        let error = annotated(&format!("{line}\n{line}")).unwrap_err().to_string();
        assert!(
            error.contains("line 2 is of an episode that does not exist or has a line already"),
            "{error}"
        );
    }
}
