//! The option letter as VLMEvalKit's `can_match_option` reads it, which EASI uses for most benchmarks of choices
//! (`dataset/utils/spatial_bench/matching_func.py`). It does not know the question's options.

use std::sync::LazyLock;

use fancy_regex::Regex;

use super::pattern::{Pattern, last_end, letter, letters, pattern};
use super::python::{lines, strip, tail};

/// Characters whose last ones are looked at for a letter before a closing tag.
const TAIL: usize = 800;

/// Number of lines that are looked at from below.
const LINES: usize = 6;

const OPENING: &str = r"[\(\[\{（【]?";
const CLOSING: &str = r"[\)\]\}）】]?";

/// An `<answer>` block that begins with a letter.
static BLOCK: Pattern = LazyLock::new(|| pattern(r"(?is)<~answer›[^>]*>~([a-jİı]).*?<~/~answer~>"));

static BEFORE_ANSWER: Pattern = LazyLock::new(|| before_tag("answer"));
static BEFORE_THINK: Pattern = LazyLock::new(|| before_tag("th[iİı]nk"));

/// A letter directly before a closing tag.
fn before_tag(tag: &str) -> Option<Regex> {
    pattern(&format!(r"(?i)(?<![a-zİı]){OPENING}~([a-f])~{CLOSING}~</~{tag}~>"))
}

static THINK_END: Pattern = LazyLock::new(|| pattern("(?i)</~th[iİı]nk~>"));
static THINK_START: Pattern = LazyLock::new(|| pattern("(?i)<~th[iİı]nk~>"));

/// A line that lists an option.
static LISTED: Pattern = LazyLock::new(|| {
    pattern(r"(?i)^(?:[*_>\-]|[\s\x1c-\x1f])*(?:opt[iİı]on|选项)[\s\x1c-\x1f]+[a-j]~[:：]")
});

/// A line of one letter.
static ALONE: Pattern =
    LazyLock::new(|| pattern(r"^~[*_`>（）\[\]【】()]*~([A-Fa-f])~[*_`（）\[\]【】()]*~$"));

/// A line that a letter labels.
static LABELLED: Pattern =
    LazyLock::new(|| pattern(r"(?i)^~([a-f])~[.．:：)\]】、-][\s\x1c-\x1f]+"));

/// A capital letter that is a word of its own.
static TOKEN: Pattern = LazyLock::new(|| {
    pattern(
        r"(?<![A-Za-z])[*_`（\[{(]*~([A-F])~[*_`）\]})]*(?=$|[\s\x1c-\x1f.,:;!?)\]】》」』，。；、：）])",
    )
});

/// A phrase that concludes.
static PHRASE: Pattern = LazyLock::new(|| {
    pattern(&format!(
        "(?i)(?:f[iİı]nal~answer|the~answer~[iİı]s|answer(?:~[iİı]s)?|correct~answer|答案|最终答案|结论|所以|因此|我选(?:择)?|选择|选)\
         ~[:：>＝=]?~{OPENING}~([a-f])(?![\\w\\p{{N}}])"
    ))
});

/// A capital letter without a letter on either side.
static ANYWHERE: Pattern =
    LazyLock::new(|| pattern(&format!("(?<![A-Za-z]){OPENING}~([A-F])~{CLOSING}(?![A-Za-z])")));

/// The option letter of `answer`, from A to F; after an `<answer>` tag, to J.
pub(crate) fn match_option(answer: &str) -> Option<char> {
    let text = strip(answer).replace(['\u{200b}', '\u{200c}', '\u{200d}', '\u{feff}'], "");
    let end = tail(&text, TAIL);
    letter(&BLOCK, &text)
        .or_else(|| letter(&BEFORE_ANSWER, end))
        .or_else(|| letter(&BEFORE_THINK, end))
        .or_else(|| from_lines(after_reasoning(&text)))
        .or_else(|| from_lines(end))
        .or_else(|| letter(&PHRASE, &text))
        .or_else(|| only_letter(&ANYWHERE, &unlisted(&text)))
}

/// The only letter among all that `pattern` captures.
fn only_letter(pattern: &Pattern, text: &str) -> Option<char> {
    let mut letters = letters(pattern, text);
    let one = letters.next()?;
    letters.all(|other| other == one).then_some(one)
}

fn is_match(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text).unwrap_or(false))
}

/// The text behind the last end of reasoning, or else its last start.
fn after_reasoning(text: &str) -> &str {
    let last = |pattern: &Pattern| last_end(pattern, text).map(|end| strip(&text[end..]));
    last(&THINK_END).or_else(|| last(&THINK_START)).unwrap_or(text)
}

/// The letter of the lowest of the last lines that decides.
fn from_lines(text: &str) -> Option<char> {
    let lines = lines(text);
    let last = lines[lines.len().saturating_sub(LINES)..].iter().rev();
    let full = last.map(|line| strip(line)).filter(|line| !line.is_empty());
    full.filter(|line| !is_match(&LISTED, line)).find_map(|line| {
        let labelled = || letter(&LABELLED, line);
        letter(&ALONE, line).or_else(labelled).or_else(|| only_letter(&TOKEN, line))
    })
}

/// The text without lines that list an option.
fn unlisted(text: &str) -> String {
    let kept = lines(text).into_iter().filter(|line| !is_match(&LISTED, line));
    kept.collect::<Vec<_>>().join("\n")
}
