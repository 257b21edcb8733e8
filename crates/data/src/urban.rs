//! UrbanVideo-Bench: questions about drone flights through cities, in `MCQ.parquet`.

use std::path::Path;

use crate::error::Result;
use crate::parquet::{Column, Table, write_table};
use crate::question::Question;
use crate::row::{Row, file_name, invalid_value, option_letter};

/// The annotation file's name within the benchmark's folder.
pub const ANNOTATIONS: &str = "MCQ.parquet";

/// The categories that Embodied-R trains and is evaluated on.
pub const CATEGORIES: [&str; 4] =
    ["Landmark Position", "Counterfactual", "Progress Evaluation", "Action Generation"];

/// One row of the annotation file, its fields named as its columns (the first is `Question_id`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UrbanRow {
    /// The benchmark's question id.
    pub question_id: i64,
    /// File name of the video.
    pub video_id: String,
    /// The category.
    pub question_category: String,
    /// Question and options.
    pub question: String,
    /// A letter.
    pub answer: String,
}

/// Reads an annotation file.
///
/// # Errors
/// The file is not readable parquet, or a column is missing, has the wrong type or contains nulls.
pub fn read_parquet(path: &Path) -> Result<Vec<UrbanRow>> {
    let table = Table::read(path)?;
    let mut video_id = table.strings("video_id")?.into_iter();
    let mut question_category = table.strings("question_category")?.into_iter();
    let mut question = table.strings("question")?.into_iter();
    let mut answer = table.strings("answer")?.into_iter();
    let mut next_row = |question_id| {
        Some(UrbanRow {
            question_id,
            video_id: video_id.next()?,
            question_category: question_category.next()?,
            question: question.next()?,
            answer: answer.next()?,
        })
    };
    Ok(table.integers("Question_id")?.into_iter().map_while(&mut next_row).collect())
}

/// Writes an annotation file.
///
/// # Errors
/// The file cannot be written.
pub fn write_parquet(path: &Path, rows: &[UrbanRow]) -> Result<()> {
    let texts = |field: fn(&UrbanRow) -> &String| {
        Column::Strings(rows.iter().map(|row| field(row).clone()).collect())
    };
    write_table(
        path,
        vec![
            ("Question_id", Column::Integers(rows.iter().map(|row| row.question_id).collect())),
            ("video_id", texts(|row| &row.video_id)),
            ("question_category", texts(|row| &row.question_category)),
            ("question", texts(|row| &row.question)),
            ("answer", texts(|row| &row.answer)),
        ],
    )
}

impl Row for UrbanRow {
    fn category(&self) -> &str {
        &self.question_category
    }

    fn source(&self) -> Option<&str> {
        None
    }

    fn question(&self, path: &Path, row: usize) -> Result<Question> {
        let wrong = invalid_value(path, row);
        if !file_name(&self.video_id) {
            return Err(wrong("video_id", &self.video_id, "the name of a video file"));
        }
        let answer = self.answer.trim();
        if option_letter(answer).is_none() {
            return Err(wrong("answer", answer, "an upper-case letter"));
        }
        Ok(Question {
            question_id: self.question_id.into(),
            video_id: Some(self.video_id.clone()),
            question_category: self.question_category.clone(),
            question: question_text(&self.question),
            answer: answer.to_owned(),
            scene_name: Some(scene_of(&self.video_id).to_owned()),
            ..Question::default()
        })
    }
}

/// The trajectory of a clip; clips of one trajectory show the same places.
///
/// `AerialVLN_n_ID[_k].mp4` belongs to `ID`; any other clip belongs to its name without the clip
/// number (`EmbodiedCity_98_2.mp4` to `EmbodiedCity_98`, `RealWorld_GN_0_1.mp4` to
/// `RealWorld_GN_0`). A sole number is that of the trajectory: `EmbodiedCity_98.mp4` is the uncut
/// `EmbodiedCity_98`.
pub fn scene_of(video_id: &str) -> &str {
    let name = match video_id.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => video_id,
    };
    if let Some(rest) = name.strip_prefix("AerialVLN_") {
        let id = match rest.split_once('_') {
            Some((flight, id)) if number(flight) && !id.is_empty() => id,
            _ => return name,
        };
        return without_number(id).unwrap_or(id);
    }
    match without_number(name) {
        Some(trajectory) if without_number(trajectory).is_some() => trajectory,
        _ => name,
    }
}

/// `name` of `name_12`.
fn without_number(name: &str) -> Option<&str> {
    let (rest, last) = name.rsplit_once('_')?;
    (number(last) && !rest.is_empty()).then_some(rest)
}

fn number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// The benchmark's text, normalized to start with `Question: `.
///
/// Nearly all texts already do and are unchanged. Quotes, code fences and remarks (`Modified text:`)
/// around the others are removed.
fn question_text(text: &str) -> String {
    const MARK: &str = "Question:";
    if text.starts_with("Question: ") {
        return text.to_owned();
    }
    let Some((before, question)) = text.split_once(MARK) else {
        return format!("{MARK} {}", text.trim());
    };
    let mut question = question.trim();
    if before.ends_with("**") {
        question = question.strip_prefix("**").unwrap_or(question).trim_start();
    }
    while let Some((rest, last)) = question.rsplit_once('\n') {
        if !last.trim().chars().all(|c| matches!(c, '`' | '"' | '“' | '”')) {
            break;
        }
        question = rest.trim_end();
    }
    format!("{MARK} {question}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row(video_id: &str, answer: &str) -> UrbanRow {
        UrbanRow {
            question_id: 12,
            video_id: video_id.into(),
            question_category: "Counterfactual".into(),
            question: "Question: Why?  \nchoose:  \nA. x  \nB. y  ".into(),
            answer: answer.into(),
        }
    }

    #[test]
    fn rows_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ANNOTATIONS);
        let rows = [row("EmbodiedCity_98_2.mp4", "A"), row("RealWorld_3.mp4", "G")];
        write_parquet(&path, &rows).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), rows);
    }

    #[test]
    fn a_clip_belongs_to_its_trajectory() {
        for (clip, scene) in [
            ("AerialVLN_0_35H6S234SJYE7JR0C76Q_2.mp4", "35H6S234SJYE7JR0C76Q"),
            ("AerialVLN_0_35H6S234SJYE7JR0C76Q.mp4", "35H6S234SJYE7JR0C76Q"),
            ("AerialVLN_0_35H6S234SJYE7JR0C76Q_2", "35H6S234SJYE7JR0C76Q"),
            ("AerialVLN_12_77_10.mp4", "77"),
            ("EmbodiedCity_98_2.mp4", "EmbodiedCity_98"),
            ("EmbodiedCity_98.mp4", "EmbodiedCity_98"),
            ("RealWorld_GN_0_1.mp4", "RealWorld_GN_0"),
            ("RealWorld_4_11.mp4", "RealWorld_4"),
            ("walk.mp4", "walk"),
        ] {
            assert_eq!(scene_of(clip), scene, "{clip}");
        }
    }

    proptest! {
        #[test]
        fn all_clips_of_a_flight_belong_to_one_scene(
            id in "[A-Z0-9]{1,30}", flight in 0u32..9, clip in 0u32..99,
        ) {
            let uncut = format!("AerialVLN_{flight}_{id}.mp4");
            let cut = format!("AerialVLN_{flight}_{id}_{clip}.mp4");
            prop_assert_eq!(scene_of(&uncut), &id);
            prop_assert_eq!(scene_of(&cut), &id);
        }

        #[test]
        fn all_clips_of_a_numbered_trajectory_belong_to_one_scene(
            name in "[B-Z][a-zA-Z]{0,9}(_[A-Z]{2})?", number in 0u32..999, clip in 0u32..99,
        ) {
            let trajectory = format!("{name}_{number}");
            let uncut = format!("{trajectory}.mp4");
            let cut = format!("{trajectory}_{clip}.mp4");
            prop_assert_eq!(scene_of(&uncut), &trajectory);
            prop_assert_eq!(scene_of(&cut), &trajectory);
        }

        #[test]
        fn any_name_has_a_scene_that_is_part_of_it(name in "\\PC{1,40}") {
            let scene = scene_of(&name);
            prop_assert!(!scene.is_empty() && name.contains(scene));
        }
    }

    #[test]
    fn a_text_in_the_usual_format_is_unchanged() {
        let text = "Question: Why?  \nchoose:  \nA. x  \nB. \"y\"  ";
        assert_eq!(question_text(text), text);
    }

    #[test]
    fn wrappers_around_a_text_are_removed() {
        let plain = "Question: Why?\nChoices:\nA. x\nB. y";
        for wrapped in [
            "```\n“““\nQuestion: Why?\nChoices:\nA. x\nB. y\n\n”””\n```\n",
            "\"\"\"\nQuestion: Why?\nChoices:\nA. x\nB. y\n\n\"\"\"",
            "Modified text:  \nQuestion: Why?\nChoices:\nA. x\nB. y  ",
            "**Question:** Why?\nChoices:\nA. x\nB. y",
            "Question:\nWhy?\nChoices:\nA. x\nB. y",
            "Why?\nChoices:\nA. x\nB. y",
        ] {
            assert_eq!(question_text(wrapped), plain, "{wrapped:?}");
        }
    }

    #[test]
    fn quotes_of_the_last_option_are_kept_when_fences_are_removed() {
        let wrapped = "\"\"\"\nQuestion: Why?\nA. it reads \"EXIT\"\n\"\"\"";
        assert_eq!(question_text(wrapped), "Question: Why?\nA. it reads \"EXIT\"");
    }

    #[test]
    fn an_answer_that_is_not_a_letter_is_reported_with_its_row() {
        for answer in ["", "b", "AB", "3"] {
            let error = row("a.mp4", answer).question(Path::new("x.parquet"), 5).unwrap_err();
            assert!(error.to_string().contains("row 5"), "{error}");
        }
    }

    #[test]
    fn a_video_id_that_is_a_path_is_rejected() {
        for hostile in ["../a.mp4", "/a.mp4", "a/b.mp4", "..", ".", ""] {
            assert!(row(hostile, "A").question(Path::new("x.parquet"), 0).is_err(), "{hostile}");
        }
    }
}
