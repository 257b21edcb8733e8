//! Answers that point, drawn on the question's image: as SVG, and as characters.

mod canvas;
mod thumbnail;

use std::fmt::Write as _;
use std::path::Path;

use embodied_r_rewards::answer;
use embodied_r_rewards::answer_type::{AnswerType, Drawing, Mark};
use embodied_r_rewards::embodied_r15;
use embodied_r_rewards::pointing::Place;
use serde_json::{Map, Value};

use crate::html::escape;
use canvas::Canvas;
use thumbnail::Thumbnail;

/// The sides of the grid that marks are on.
const SIDE: f64 = 1000.0;

/// What is needed to draw the answers of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawn {
    answer_type: AnswerType,
    /// `coordinates`, `width`, `height` and `images`.
    columns: Map<String, Value>,
}

impl Drawn {
    /// Of a question with these columns; `None` if its answers are not drawn.
    pub fn of_columns(columns: Map<String, Value>) -> Option<Self> {
        let answer_type = AnswerType::of_columns(&columns).filter(|it| it.is_drawn())?;
        Some(Self { answer_type, columns })
    }

    /// Of the text of the column [`DRAWN`](embodied_r_grpo::events::DRAWN).
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Self::of_columns(serde_json::from_str(text).ok()?)
    }

    fn marks(&self, text: &str) -> Drawing {
        self.answer_type.drawing(text, Some(&self.columns)).unwrap_or_default()
    }

    /// The marks of the reference answer, then those of the completion's.
    fn both(&self, solution: &str, completion: &str) -> [Drawing; 2] {
        let answer = answer::text(completion).ok().or_else(|| embodied_r15::answer(completion));
        let solution = answer::answer_tag(solution).unwrap_or(solution);
        [self.marks(solution), answer.map(|text| self.marks(text)).unwrap_or_default()]
    }

    /// The last image's path in `folder`, which relative paths are in.
    fn image(&self, folder: &Path) -> Option<std::path::PathBuf> {
        let path = match self.columns.get("images")? {
            Value::Array(images) => images.last()?.as_str()?,
            path => path.as_str()?,
        };
        Some(folder.join(path))
    }

    /// The last image of the question with the reference answer and the completion's on it, as a `<figure>`. Relative paths are
    /// in `folder`. Without the image, the marks are on an empty one.
    pub fn figure(&self, solution: &str, completion: &str, folder: &Path) -> String {
        let path = self.image(folder);
        let thumbnail = path.as_deref().and_then(Thumbnail::read);
        let size = |name| self.columns.get(name).and_then(Value::as_f64).filter(|it| *it >= 1.0);
        let (width, height) = match (&thumbnail, size("width"), size("height")) {
            (Some(thumbnail), _, _) => thumbnail.size(),
            (None, Some(width), Some(height)) => (width, height),
            _ => (SIDE, SIDE * 0.75),
        };
        let mut svg = format!(
            "<figure class=\"pointing\"><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"the answer on the image\">\n"
        );
        match &thumbnail {
            Some(thumbnail) => {
                let _ = writeln!(
                    svg,
                    "<image href=\"{}\" width=\"{width}\" height=\"{height}\"/>",
                    thumbnail.data_uri()
                );
            }
            None => svg.push_str("<rect class=\"empty\" width=\"100%\" height=\"100%\"/>\n"),
        }
        let marks = self.both(solution, completion);
        for (class, marks) in ["truth", "answered"].into_iter().zip(&marks) {
            for mark in marks {
                shape(mark, class, (width, height), &mut svg);
            }
        }
        svg.push_str("</svg>\n<figcaption>");
        let none = |marks: &Drawing, text| if marks.is_empty() { text } else { "" };
        let _ = write!(
            svg,
            "<span class=\"truth\">reference answer</span> <span class=\"answered\">answer{}</span>",
            none(&marks[1], ": none that can be drawn")
        );
        if let (Some(path), None) = (&path, &thumbnail) {
            let path = escape(&path.to_string_lossy());
            let _ = write!(svg, " <span>the image <code>{path}</code> cannot be shown</span>");
        }
        svg.push_str("</figcaption></figure>\n");
        svg
    }

    /// The reference answer and the completion's as characters: `o` and `x`, `#` where both are.
    pub fn characters(&self, solution: &str, completion: &str) -> String {
        let mut canvas = Canvas::default();
        let [truth, answered] = self.both(solution, completion);
        truth.iter().for_each(|mark| canvas.draw(mark, 'o'));
        answered.iter().for_each(|mark| canvas.draw(mark, 'x'));
        canvas.to_string()
    }
}

/// A mark as an SVG element in an image of this size.
fn shape(mark: &Mark, class: &str, (width, height): (f64, f64), svg: &mut String) {
    let at = |place: &Place| (place.x * width / SIDE, place.y * height / SIDE);
    let points = |places: &[Place]| -> String {
        let texts = places.iter().map(at).map(|(x, y)| format!("{x:.1},{y:.1}"));
        texts.collect::<Vec<_>>().join(" ")
    };
    let radius = width.max(height) / 60.0;
    let _ = match mark {
        Mark::Point(place) => {
            let (x, y) = at(place);
            writeln!(
                svg,
                "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
            )
        }
        Mark::Box(rectangle) => {
            let ((x, y), (right, bottom)) = (at(&rectangle.from), at(&rectangle.to));
            writeln!(
                svg,
                "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                (right - x).max(0.0),
                (bottom - y).max(0.0)
            )
        }
        Mark::Polygon(places) => {
            writeln!(svg, "<polygon class=\"{class}\" points=\"{}\"/>", points(places))
        }
        Mark::Path(places) => {
            let mut written =
                writeln!(svg, "<polyline class=\"{class}\" points=\"{}\"/>", points(places));
            if let Some((x, y)) = places.last().map(at) {
                written = writeln!(
                    svg,
                    "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\"/>"
                );
            }
            written
        }
    };
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn drawn(columns: Value) -> Drawn {
        Drawn::parse(&columns.to_string()).unwrap()
    }

    #[test]
    fn truth_and_answer_are_drawn_on_the_image() {
        let folder = tempfile::tempdir().unwrap();
        image::RgbImage::from_pixel(200, 100, image::Rgb([9, 99, 199]))
            .save(folder.path().join("a.png"))
            .unwrap();
        let of = drawn(json!({"answer_type": "box", "images": ["a.png"]}));
        let figure = of.figure(
            r#"{"boxes": [0, 0, 500, 500]}"#,
            "<think>x</think><answer>[250, 250, 750, 750]</answer>",
            folder.path(),
        );
        for part in [
            "viewBox=\"0 0 200 100\"",
            "<image href=\"data:image/jpeg;base64,",
            "<rect class=\"truth\" x=\"0.0\" y=\"0.0\" width=\"100.0\" height=\"50.0\"/>",
            "<rect class=\"answered\" x=\"50.0\" y=\"25.0\" width=\"100.0\" height=\"50.0\"/>",
        ] {
            assert!(figure.contains(part), "{part}: {figure}");
        }
        assert_eq!(
            figure,
            of.figure(
                r#"{"boxes": [0, 0, 500, 500]}"#,
                "<answer>[250, 250, 750, 750]</answer>",
                folder.path()
            )
        );
    }

    #[test]
    fn what_cannot_be_drawn_is_said() {
        let path = "<script>.png";
        let of = drawn(json!({"answer_type": "trace", "images": [path]}));
        let figure = of.figure("[[0, 0], [10, 10]]", "<answer><b>there</answer>", Path::new(""));
        assert!(figure.contains("answer: none that can be drawn"), "{figure}");
        assert!(figure.contains("<code>&lt;script&gt;.png</code> cannot be shown"), "{figure}");
        assert!(
            figure.contains("<polyline class=\"truth\" points=\"0.0,0.0 10.0,7.5\"/>"),
            "{figure}"
        );
        assert!(!figure.contains("<b>"), "{figure}");
        assert_eq!(Drawn::parse(r#"{"answer_type": "text"}"#), None);
        assert_eq!(Drawn::parse("x"), None);
    }

    #[test]
    fn marks_are_characters() {
        let of = drawn(json!({"answer_type": "point", "coordinates": "norm1"}));
        let text = of.characters("[0, 0], [0.5, 0.5]", "<answer>[1, 1], [0.5, 0.5]</answer>");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].starts_with("|o"), "{text}");
        assert!(lines[lines.len() - 2].ends_with("x|"), "{text}");
        assert_eq!(text.matches('#').count(), 1, "{text}");
        let of = drawn(json!({"answer_type": "trace"}));
        let text = of.characters("[0, 0], [1000, 0]", "<answer></answer>");
        assert!(text.lines().nth(1).unwrap().matches('o').count() > 40, "{text}");
    }
}
