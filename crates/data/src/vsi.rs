//! VSI-Bench: questions about videos of rooms, in `test-00000-of-00001.parquet`.

use std::path::Path;

use crate::error::Result;
use crate::parquet::{Column, Table, write_table};
use crate::question::Question;
use crate::row::{Row, file_name, invalid_value, labelled_option, option_letter};

/// The annotation file's name within the benchmark's folder.
pub const ANNOTATIONS: &str = "test-00000-of-00001.parquet";

/// The categories that Embodied-R trains and is evaluated on.
pub const CATEGORIES: [&str; 6] = [
    "object_rel_direction_easy",
    "object_rel_direction_medium",
    "object_rel_direction_hard",
    "object_rel_distance",
    "route_planning",
    "obj_appearance_order",
];

/// One row of the annotation file, its fields named as its columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VsiRow {
    /// The benchmark's question id.
    pub id: i64,
    /// The video's source dataset: `arkitscenes`, `scannet` or `scannetpp`.
    pub dataset: String,
    /// The room; its video is `{scene_name}.mp4`.
    pub scene_name: String,
    /// The category.
    pub question_type: String,
    /// The question, without options.
    pub question: String,
    /// A letter, or a number for numeric categories.
    pub ground_truth: String,
    /// `A. …`, `B. …`; `None` for numeric categories.
    pub options: Option<Vec<String>>,
}

/// Reads an annotation file.
///
/// # Errors
/// The file is not readable parquet, or a column is missing, has the wrong type or contains nulls.
pub fn read_parquet(path: &Path) -> Result<Vec<VsiRow>> {
    let table = Table::read(path)?;
    let mut dataset = table.strings("dataset")?.into_iter();
    let mut scene_name = table.strings("scene_name")?.into_iter();
    let mut question_type = table.strings("question_type")?.into_iter();
    let mut question = table.strings("question")?.into_iter();
    let mut ground_truth = table.strings("ground_truth")?.into_iter();
    let mut options = table.optional_string_lists("options")?.into_iter();
    let mut next_row = |id| {
        Some(VsiRow {
            id,
            dataset: dataset.next()?,
            scene_name: scene_name.next()?,
            question_type: question_type.next()?,
            question: question.next()?,
            ground_truth: ground_truth.next()?,
            options: options.next()?,
        })
    };
    Ok(table.integers("id")?.into_iter().map_while(&mut next_row).collect())
}

/// Writes an annotation file.
///
/// # Errors
/// The file cannot be written.
pub fn write_parquet(path: &Path, rows: &[VsiRow]) -> Result<()> {
    let texts = |field: fn(&VsiRow) -> &String| {
        Column::Strings(rows.iter().map(|row| field(row).clone()).collect())
    };
    let options = rows.iter().map(|row| row.options.clone()).collect();
    write_table(
        path,
        vec![
            ("id", Column::Integers(rows.iter().map(|row| row.id).collect())),
            ("dataset", texts(|row| &row.dataset)),
            ("scene_name", texts(|row| &row.scene_name)),
            ("question_type", texts(|row| &row.question_type)),
            ("question", texts(|row| &row.question)),
            ("ground_truth", texts(|row| &row.ground_truth)),
            ("options", Column::OptionalStringLists(options)),
        ],
    )
}

impl Row for VsiRow {
    fn category(&self) -> &str {
        &self.question_type
    }

    fn source(&self) -> Option<&str> {
        Some(&self.dataset)
    }

    fn question(&self, path: &Path, row: usize) -> Result<Question> {
        let wrong = invalid_value(path, row);
        let video_id = format!("{}.mp4", self.scene_name);
        if !file_name(&video_id) {
            return Err(wrong("scene_name", &self.scene_name, "the name of a video file"));
        }
        let answer = self.ground_truth.trim();
        if let Some(options) = &self.options {
            let index = option_letter(answer).filter(|&index| index < options.len());
            if index.is_none() {
                return Err(wrong("ground_truth", answer, "the letter of one of the options"));
            }
        }
        Ok(Question {
            question_id: self.id.into(),
            video_id: Some(video_id),
            question_category: self.question_type.clone(),
            question: question_text(&self.question, self.options.as_deref()),
            answer: answer.to_owned(),
            scene_name: Some(self.scene_name.clone()),
            ..Question::default()
        })
    }
}

/// Question and options in UrbanVideo-Bench's format: `Question: …`, an empty line, `Choices:`, and
/// one option per line.
///
/// Options without a letter get one.
pub fn question_text(question: &str, options: Option<&[String]>) -> String {
    let mut text = format!("Question: {}", question.trim());
    let Some(options) = options else { return text };
    text.push_str("\n\nChoices:");
    for (index, (letter, option)) in ('A'..='Z').zip(options).enumerate() {
        let option = option.trim();
        text.push('\n');
        if labelled_option(option) != Some(index) {
            text.push(letter);
            text.push_str(". ");
        }
        text.push_str(option);
    }
    text
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn row(id: i64, scene: &str, options: Option<&[&str]>) -> VsiRow {
        VsiRow {
            id,
            dataset: "scannet".into(),
            scene_name: scene.into(),
            question_type: "route_planning".into(),
            question: "Where to?".into(),
            ground_truth: if options.is_some() { "B".into() } else { "2.5".into() },
            options: options.map(|texts| texts.iter().map(|&text| text.to_owned()).collect()),
        }
    }

    #[test]
    fn rows_round_trip() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ANNOTATIONS);
        let rows =
            [row(7, "scene0001_00", Some(&["A. left", "B. right"])), row(9, "41069025", None)];
        write_parquet(&path, &rows).unwrap();
        assert_eq!(read_parquet(&path).unwrap(), rows);
    }

    #[test]
    fn question_and_options_become_one_text() {
        let vsi_row = row(7, "scene0001_00", Some(&["A. left", "B. right"]));
        let question = vsi_row.question(Path::new("x.parquet"), 0).unwrap();
        assert_eq!(question.question, "Question: Where to?\n\nChoices:\nA. left\nB. right");
        assert_eq!(question.id(), "7");
        assert_eq!(question.answer, "B");
        assert_eq!(question.video_id.as_deref(), Some("scene0001_00.mp4"));
        assert_eq!(question.scene_name.as_deref(), Some("scene0001_00"));
    }

    #[test]
    fn options_without_letters_get_them() {
        let options = ["left".to_owned(), "Back".to_owned()];
        assert_eq!(
            question_text(" Where? ", Some(&options)),
            "Question: Where?\n\nChoices:\nA. left\nB. Back"
        );
        let labelled = ["Ａ．左", "B) rechts", "A. left"].map(str::to_owned);
        assert_eq!(
            question_text("Where?", Some(&labelled)),
            "Question: Where?\n\nChoices:\nＡ．左\nB) rechts\nC. A. left"
        );
    }

    #[test]
    fn a_numeric_question_has_no_choices_and_keeps_its_number() {
        let question = row(7, "s", None).question(Path::new("x.parquet"), 0).unwrap();
        assert_eq!(question.question, "Question: Where to?");
        assert_eq!(question.answer, "2.5");
    }

    #[test]
    fn an_answer_may_be_a_full_width_letter() {
        let with_answer = |answer: &str| {
            let ground_truth = answer.to_owned();
            let row = VsiRow { ground_truth, ..row(7, "s", Some(&["Ａ．左", "Ｂ．右"])) };
            row.question(Path::new("x.parquet"), 0)
        };
        assert_eq!(with_answer("Ｂ").unwrap().answer, "Ｂ");
        assert!(with_answer("Ｃ").is_err());
    }

    #[test]
    fn an_answer_that_is_not_an_option_is_reported_with_its_row() {
        let vsi_row = row(7, "s", Some(&["A. left"]));
        let error = vsi_row.question(Path::new("x.parquet"), 3).unwrap_err().to_string();
        assert!(error.contains("row 3") && error.contains("ground_truth"), "{error}");
    }

    #[test]
    fn a_scene_name_that_is_a_path_is_rejected() {
        for hostile in ["../../secret", "/etc/passwd", "a/b", "", "a\\b"] {
            let vsi_row = row(7, hostile, None);
            assert!(vsi_row.question(Path::new("x.parquet"), 0).is_err(), "{hostile}");
        }
    }
}
