//! The answers of an evaluation that point, drawn on their images.

use std::fmt::Write as _;
use std::path::Path;

use embodied_r_data::prompts::question_part;

use crate::chart::number;
use crate::document::document;
use crate::drawing::Drawn;
use crate::html::escape;

/// Answers on a page, which has about 15 KB for each.
const MAX_ANSWERS: usize = 1000;
/// Maximum characters of an answer.
const MAX_CHARS: usize = 2000;

/// An answer and its score.
#[derive(Debug, Clone)]
pub struct DrawnAnswer<'a> {
    /// The question's identifier.
    pub id: &'a str,
    /// The question or the whole prompt.
    pub question: &'a str,
    /// The reference answer.
    pub solution: &'a str,
    /// The model's completion; a bare answer in an `<answer>` tag.
    pub completion: String,
    /// From 0 to 1.
    pub score: f64,
    /// What is needed to draw it.
    pub drawn: Drawn,
}

/// A page of answers, the worst first. Relative paths of images are in `folder`.
pub fn answers_page(title: &str, mut answers: Vec<DrawnAnswer<'_>>, folder: &Path) -> String {
    answers.sort_by(|a, b| a.score.total_cmp(&b.score));
    let (count, mean) = (answers.len(), mean(&answers));
    let shown = match count > MAX_ANSWERS {
        true => format!(", the {MAX_ANSWERS} worst of them"),
        false => String::new(),
    };
    let note =
        format!("{count} answers that point{shown}, the worst first; mean score {}", number(mean));
    let mut body = String::from("<section>\n<div class=\"grid\">\n");
    for answer in answers.iter().take(MAX_ANSWERS) {
        let DrawnAnswer { id, question, solution, completion, score, drawn } = answer;
        let text: String = completion.chars().take(MAX_CHARS).collect();
        let class = if *score == 1.0 {
            " good"
        } else if *score == 0.0 {
            " poor"
        } else {
            ""
        };
        let _ = write!(
            body,
            "<article class=\"card completion\">\n<div class=\"chips\"><span class=\"chip\">{}</span>\
             <span class=\"chip{class}\">score {}</span></div>\n<div class=\"question\">{}</div>\n{}<div class=\"output\">{}</div>\n</article>\n",
            escape(id),
            number(*score),
            escape(question_part(question)),
            drawn.figure(solution, completion, folder),
            escape(&text),
        );
    }
    body.push_str("</div>\n</section>\n");
    document(title, "answers", &note, &body)
}

fn mean(answers: &[DrawnAnswer<'_>]) -> f64 {
    answers.iter().map(|answer| answer.score).sum::<f64>() / answers.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_worst_answers_come_first_and_nothing_in_them_runs() {
        let answer = |id: &'static str, score: f64| DrawnAnswer {
            id,
            question: "…\nQuestion: <where>?",
            solution: "[500, 500]",
            completion: "<script>alert(1)</script><answer>[10, 10]</answer>".to_owned(),
            score,
            drawn: Drawn::of_columns(json!({"answer_type": "point"}).as_object().unwrap().clone())
                .unwrap(),
        };
        let page =
            answers_page("<x>", vec![answer("right", 1.0), answer("<wrong>", 0.0)], Path::new(""));
        assert!(page.find("&lt;wrong&gt;").unwrap() < page.find(">right<").unwrap(), "{page}");
        assert!(page.contains("2 answers that point, the worst first; mean score 0.5"), "{page}");
        assert_eq!(page.matches("<svg").count(), 2);
        assert!(page.contains("<div class=\"question\">Question: &lt;where&gt;?</div>"), "{page}");
        for tag in ["<script", "<x>", "<where>", "http"] {
            assert!(!page.contains(tag), "{tag}");
        }
    }
}
