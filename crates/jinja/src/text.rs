//! Characters as Python's `str` sees them.

use std::sync::LazyLock;

use fancy_regex::Regex;

/// Python's `str.isspace` of a character.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// A class of characters.
struct Class(LazyLock<Option<Regex>>);

impl Class {
    fn has(&self, c: char) -> bool {
        let mut buffer = [0; 4];
        let text = &*c.encode_utf8(&mut buffer);
        self.0.as_ref().is_some_and(|class| class.is_match(text).unwrap_or_default())
    }
}

static LETTER: Class = Class(LazyLock::new(|| Regex::new(r"\p{L}").ok()));
static DECIMAL: Class = Class(LazyLock::new(|| Regex::new(r"\p{Nd}").ok()));
static NUMBER: Class = Class(LazyLock::new(|| Regex::new(r"\p{N}").ok()));
static TITLECASE: Class = Class(LazyLock::new(|| Regex::new(r"\p{Lt}").ok()));
static UNPRINTABLE: Class = Class(LazyLock::new(|| Regex::new(r"[\p{C}\p{Z}]").ok()));
static WORD_START: Class = Class(LazyLock::new(|| Regex::new(r"[_\p{XID_Start}]").ok()));
static WORD: Class = Class(LazyLock::new(|| Regex::new(r"\p{XID_Continue}").ok()));

/// Characters that are digits and no decimals, such as `²`.
const DIGITS: [(u32, u32); 20] = [
    (178, 179),
    (185, 185),
    (4969, 4977),
    (6618, 6618),
    (8304, 8304),
    (8308, 8313),
    (8320, 8329),
    (9312, 9320),
    (9332, 9340),
    (9352, 9360),
    (9450, 9450),
    (9461, 9469),
    (9471, 9471),
    (10102, 10110),
    (10112, 10120),
    (10122, 10130),
    (68160, 68163),
    (69216, 69224),
    (69714, 69722),
    (127_232, 127_242),
];

/// Letters that are numbers.
const NUMERIC_LETTERS: &str = "㐅㒃㠪㭍一七万三九二五亖亿什仟仨伍佰億兆兩八六十千卄卅卌叁参參叄四壱壹幺廾廿弌弍弎弐拾捌柒漆玖百肆萬貮貳贰阡陆陌陸零\
    \u{f96b}\u{f973}\u{f978}\u{f9b2}\u{f9d1}\u{f9d3}\u{f9fd}\u{20001}\u{20064}\u{200e2}\u{20121}\u{2092a}\u{20983}\
    \u{2098c}\u{2099c}\u{20aea}\u{20afd}\u{20b19}\u{22390}\u{22998}\u{23b1b}\u{2626d}\u{2f890}";

pub(super) fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || (!c.is_ascii() && LETTER.has(c))
}

pub(super) fn is_decimal(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && DECIMAL.has(c))
}

/// A text with ASCII digits in place of the decimals of other scripts.
pub(super) fn with_ascii_digits(text: &str) -> String {
    let digit = |c: char| {
        // Decimals are in runs of ten, or of fifty.
        let before = (1..50).take_while(|back| {
            char::from_u32(u32::from(c).wrapping_sub(*back)).is_some_and(is_decimal)
        });
        char::from_digit(before.count() as u32 % 10, 10).unwrap_or(c)
    };
    let ascii = |c: char| if !c.is_ascii() && is_decimal(c) { digit(c) } else { c };
    text.chars().map(ascii).collect()
}

pub(super) fn is_digit(c: char) -> bool {
    let code = u32::from(c);
    is_decimal(c) || DIGITS.iter().any(|(from, to)| (*from..=*to).contains(&code))
}

pub(super) fn is_numeric(c: char) -> bool {
    c.is_ascii_digit() || (!c.is_ascii() && (NUMBER.has(c) || NUMERIC_LETTERS.contains(c)))
}

pub(super) fn is_alphanumeric(c: char) -> bool {
    is_letter(c) || is_numeric(c)
}

/// `\w` of Python's regular expressions.
pub(super) fn is_word(c: char) -> bool {
    c == '_' || is_alphanumeric(c)
}

pub(super) fn is_titlecase(c: char) -> bool {
    !c.is_ascii() && TITLECASE.has(c)
}

pub(super) fn is_cased(c: char) -> bool {
    c.is_lowercase() || c.is_uppercase() || is_titlecase(c)
}

pub(super) fn is_printable(c: char) -> bool {
    c == ' ' || c.is_ascii_graphic() || (!c.is_ascii() && !UNPRINTABLE.has(c))
}

pub(super) fn is_identifier(text: &str) -> bool {
    let mut chars = text.chars();
    chars.next().is_some_and(|c| WORD_START.has(c)) && chars.all(|c| WORD.has(c))
}

/// Python's `str.casefold`.
pub(super) fn casefold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match u32::from(c) {
            // A dotless i and Cherokee capitals.
            0x131 | 0x13a0..=0x13f5 => folded.push(c),
            0x13f8..=0x13fd => folded.extend(char::from_u32(u32::from(c) - 8)),
            0xab70..=0xabbf => folded.extend(char::from_u32(u32::from(c) - 0xab70 + 0x13a0)),
            0x1e9e => folded.push_str("ss"),
            _ => folded.extend(c.to_uppercase().flat_map(char::to_lowercase)),
        }
    }
    folded
}

/// A character in title case.
pub(super) fn titlecase(c: char) -> String {
    let code = u32::from(c);
    let single = match code {
        // Digraphs, such as dž.
        452..=460 => (code - 452) / 3 * 3 + 453,
        497..=499 => 498,
        // Georgian has no title case.
        4304..=4351 => code,
        // Greek with an iota below.
        8064..=8111 => code | 8,
        8115 | 8124 => 8124,
        8131 | 8140 => 8140,
        8179 | 8188 => 8188,
        _ => 0,
    };
    if let Some(single) = char::from_u32(single).filter(|_| single != 0) {
        return single.to_string();
    }
    match code {
        0x149 => "ʼN".to_owned(),
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next().into_iter();
            let is_greek = matches!(code, 8114..=8119 | 8130..=8135 | 8178..=8183);
            let rest = upper.flat_map(char::to_lowercase);
            let below = |c| if is_greek && c == 'ι' { '\u{345}' } else { c };
            first.chain(rest.map(below)).collect()
        }
    }
}

/// Python's `str.lower`, also with the final sigma.
pub(super) fn lower(text: &str) -> String {
    text.to_lowercase()
}

/// The lower case of the characters after `at`, which know what is before them.
fn lower_from(text: &str, at: usize) -> String {
    match text[at..].contains('Σ') {
        false => text[at..].to_lowercase(),
        true => {
            // Only a sigma depends on its surroundings.
            let before =
                text[..at].chars().next_back().filter(|c| is_letter(*c)).map_or("", |_| "a");
            let all = format!("{before}{}", &text[at..]).to_lowercase();
            all[before.len()..].to_owned()
        }
    }
}

/// Python's `str.capitalize`.
pub(super) fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    titlecase(first) + &lower_from(text, first.len_utf8())
}

/// Python's `str.title`.
pub(super) fn title(text: &str) -> String {
    let mut titled = String::with_capacity(text.len());
    let mut after_cased = false;
    let mut word = 0;
    for (at, c) in text.char_indices() {
        if is_cased(c) {
            if !after_cased {
                titled.push_str(&titlecase(c));
                word = at + c.len_utf8();
                after_cased = true;
            }
            continue;
        }
        if after_cased {
            titled.push_str(&lower_from(&text[..at], word));
        }
        titled.push(c);
        after_cased = false;
    }
    if after_cased {
        titled.push_str(&lower_from(text, word));
    }
    titled
}

/// Python's `str.swapcase`.
pub(super) fn swapcase(text: &str) -> String {
    let mut swapped = String::with_capacity(text.len());
    for (at, c) in text.char_indices() {
        match c {
            'Σ' => {
                let is_letter = |c: Option<char>| c.is_some_and(is_cased);
                let before = is_letter(text[..at].chars().next_back());
                let after = is_letter(text[at + c.len_utf8()..].chars().next());
                swapped.push(if before && !after { 'ς' } else { 'σ' });
            }
            _ if c.is_uppercase() => swapped.extend(c.to_lowercase()),
            _ if c.is_lowercase() => swapped.extend(c.to_uppercase()),
            _ => swapped.push(c),
        }
    }
    swapped
}

/// The lines of Python's `str.splitlines`.
pub(super) fn lines(text: &str, with_ends: bool) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let is_break = |c: char| {
            matches!(
                c,
                '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'
                    ..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}'
            )
        };
        let Some(at) = rest.find(is_break) else {
            lines.push(rest);
            break;
        };
        let length = match rest[at..].strip_prefix("\r\n") {
            Some(_) => 2,
            None => rest[at..].chars().next().map_or(0, char::len_utf8),
        };
        let end = if with_ends { at + length } else { at };
        lines.push(&rest[..end]);
        rest = &rest[at + length..];
    }
    lines
}

/// Where the character `index` of a text is; the end if there are fewer.
pub(super) fn offset(text: &str, index: usize) -> usize {
    if text.is_ascii() {
        return index.min(text.len());
    }
    text.char_indices().nth(index).map_or(text.len(), |(at, _)| at)
}

/// Text for HTML.
pub(super) fn escape_html(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\'' => escaped.push_str("&#39;"),
            '"' => escaped.push_str("&#34;"),
            other => escaped.push(other),
        }
    }
    escaped
}
