//! The part of the quickstart that is about frames: `--vision`.

use super::claims::BLIND;
use super::row::Row;
use super::{Quickstart, controls};

impl Quickstart<'_> {
    /// Renders rooms as frames, with a question about each: a third for testing, a fifteenth for validation.
    pub(super) fn make_views(&self) -> anyhow::Result<()> {
        let rooms = self.args.rooms;
        let (test, val) = (rooms / 3, rooms / 15);
        self.steps.command(
            &["sim", "views"],
            [
                ("--output", self.path(self.world.folder()).into()),
                ("--train", (rooms - test - val).to_string().into()),
                ("--val", val.to_string().into()),
                ("--test", test.to_string().into()),
                ("--seed", self.seed()),
            ],
        )
    }

    /// The rows before and after training, and of the trained model without the frames of the questions.
    pub(super) fn vision_rows(&self) -> anyhow::Result<Vec<Row>> {
        let (test, supervised) = (self.test(), self.supervised());
        let [other, grey, none] =
            ["other", "grey", "none"].map(|name| self.in_data(&format!("test_{name}.json")));
        controls::with_other_frames(&test, &other, self.args.seed)?;
        controls::with_grey_images(&test, &grey)?;
        controls::without_images(&test, &none)?;
        let mut rows = vec![
            self.row("cold start", "sft/final", &test, supervised)?,
            self.row("trained", "train/final", &test, supervised)?,
        ];
        for (name, questions) in BLIND.into_iter().zip([other, grey, none]) {
            rows.push(self.row(name, "train/final", &questions, supervised)?);
        }
        Ok(rows)
    }
}
