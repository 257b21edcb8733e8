//! Extraction of numbers.
//!
//! A number is not read in part: whatever stands at its digits is a part that this module understands, or a mark that does
//! not change the number (brackets, markup, a unit), or else the whole text has no number.

use super::AnswerError;
use super::characters::{fold, is_dash, is_fraction, is_subscript, is_superscript};

/// Stands for LaTeX that changes a number: `\frac`, `\sqrt`, `\times`.
const UNKNOWN: char = '\u{fffd}';

/// LaTeX commands that change no number.
const FORMATTING: [&str; 29] = [
    "boxed",
    "fbox",
    "text",
    "textbf",
    "textit",
    "textrm",
    "textsf",
    "mbox",
    "mathrm",
    "mathbf",
    "mathit",
    "mathsf",
    "mathtt",
    "rm",
    "bf",
    "displaystyle",
    "textstyle",
    "left",
    "right",
    "big",
    "Big",
    "large",
    "Large",
    "quad",
    "qquad",
    "approx",
    "sim",
    "simeq",
    "n",
];

/// Signs and operators, which leave no number behind if they are apart from it.
const OPERATORS: &str = "+-±∓√∛∜×÷·⋅∙/⁄∕^⁻⁺₋¯¬\u{fffd}";

/// Marks before a number that change nothing.
const MARKS: &str = "([{}<\"'“”‘’«»$€£¥#*_`~≈=:&|";

/// Marks that are operators between two numbers.
const OPERATORS_BETWEEN: &str = "*~=:";

/// Words before a number that make it another one.
const SIGN_WORDS: [&str; 8] =
    ["minus", "negative", "sqrt", "负", "負", "マイナス", "마이너스", "минус"];

/// Words after a number that make it another one.
const SCALE_WORDS: [&str; 26] = [
    "half",
    "halves",
    "third",
    "thirds",
    "quarter",
    "quarters",
    "fourth",
    "fourths",
    "fifth",
    "fifths",
    "tenth",
    "tenths",
    "dozen",
    "hundred",
    "thousand",
    "thousands",
    "k",
    "million",
    "millions",
    "billion",
    "billions",
    "trillion",
    "squared",
    "cubed",
    "pi",
    "π",
];

/// The same in scripts without spaces, where more text follows.
const SCALES: [&str; 16] = [
    "半", "个半", "個半", "百", "千", "万", "萬", "亿", "億", "兆", "百万", "백", "천", "만", "억",
    "割",
];

/// Units that begin as these do: kilometre, kilogram, megahertz, per cent and others.
const UNITS: [&str; 14] = [
    "千米", "千克", "千瓦", "千卡", "千焦", "千帕", "千赫", "千伏", "兆字", "兆赫", "兆瓦", "兆帕",
    "百分", "百帕",
];

/// The numbers in `text`, in order. Digits that belong to a word or a unit (`room2`, `m2`, `m^2`)
/// do not count; thousands separators are dropped.
///
/// # Errors
/// [`AnswerError::NumberForm`] if a number has a sign, exponent, fraction or separator that is not understood.
pub(super) fn parse_numbers(text: &str) -> Result<Vec<f64>, AnswerError> {
    let chars = plain(text);
    let mut numbers = Vec::new();
    // Where the last number ends.
    let mut previous = None;
    let mut at = 0;
    while let Some(&char) = chars.get(at) {
        if is_fraction(char)
            || (is_superscript(char) || is_subscript(char)) && !is_of_word(&chars[..at])
        {
            return Err(AnswerError::NumberForm);
        }
        if !char.is_ascii_digit() {
            at += 1;
            continue;
        }
        let start = if chars[..at].ends_with(&['.']) { at - 1 } else { at };
        let end = figure_end(&chars, start);
        if belongs_to_word(&chars[..at])? {
            let figure = &chars[at..end];
            if previous.is_some_and(|previous| continues(&chars[previous..at], figure)) {
                return Err(AnswerError::NumberForm);
            }
            at = end;
            continue;
        }
        let negative = check_before(&chars[..start], &chars[start..end], previous)?;
        let end = exponent_end(&chars, end)?;
        check_after(&chars[end..])?;
        let size = value(&chars[start..end])?;
        numbers.push(if negative { -size } else { size });
        previous = Some(end);
        at = end;
    }
    Ok(numbers)
}

/// The number that the whole of `text` is, without a unit.
pub(super) fn whole_number(text: &str) -> Option<f64> {
    let chars: Vec<char> = fold(text.trim()).chars().map(with_ascii_minus).collect();
    let (negative, start) = match chars.first()? {
        '-' => (true, 1),
        '+' => (false, 1),
        _ => (false, 0),
    };
    let mut end = exponent_end(&chars, figure_end(&chars, start)).ok()?;
    end += usize::from(chars[end..] == ['.']);
    let size = value(&chars[start..end]).ok().filter(|_| end == chars.len())?;
    Some(if negative { -size } else { size })
}

/// The characters of `text` in one form: ASCII digits and minus signs, `^` for superscripts, no LaTeX and no tags.
fn plain(text: &str) -> Vec<char> {
    let text = fold(text).replace("{,}", ",");
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        let char = match first {
            '\\' => latex(&mut rest),
            '<' => tag(&mut rest),
            // The long vowel mark of kana is typed for a minus sign, too.
            'ー' | 'ｰ' if !plain.ends_with(char::is_alphabetic) => Some('-'),
            other => Some(with_ascii_minus(other)),
        };
        plain.extend(char);
    }
    // Degrees have no exponent.
    plain.replace("^{°", "°").replace("^°", "°").replace("^∘", "°").chars().collect()
}

/// What the LaTeX command is whose backslash is before `rest`, which loses its name.
fn latex(rest: &mut &str) -> Option<char> {
    let length = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
    let (command, after) = rest.split_at(length);
    let spaces = [',', ';', ':', '!', ' ', '(', ')', '[', ']', '\\'];
    if command.is_empty() {
        let space = after.strip_prefix(spaces)?;
        *rest = space;
        return Some(' ');
    }
    *rest = after;
    Some(match command {
        "circ" | "degree" => '°',
        _ if FORMATTING.contains(&command) => ' ',
        _ => UNKNOWN,
    })
}

/// What the HTML tag is whose `<` is before `rest`, which loses the tag; `<` if there is none.
fn tag(rest: &mut &str) -> Option<char> {
    let Some((inner, after)) = rest.split_once('>') else { return Some('<') };
    let inner = inner.trim_end_matches('/').trim_end();
    let (name, attributes) = inner.split_once(' ').unwrap_or((inner, "="));
    let letters = name.strip_prefix('/').unwrap_or(name);
    let is_name = letters.starts_with(|first: char| first.is_ascii_alphabetic())
        && letters.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if !is_name || !attributes.contains('=') {
        return Some('<');
    }
    *rest = after;
    Some(match name {
        "sup" => '^',
        "sub" => '_',
        _ => ' ',
    })
}

fn with_ascii_minus(char: char) -> char {
    if is_dash(char) { '-' } else { char }
}

/// Where the digits at `start` end, with thousands separators and decimals; `start` if there are none.
fn figure_end(chars: &[char], start: usize) -> usize {
    let digits_from =
        |from: usize| chars.iter().skip(from).take_while(|char| char.is_ascii_digit()).count();
    let mut end = start + digits_from(start);
    if (1..=3).contains(&(end - start)) && chars[start] != '0' {
        while chars.get(end) == Some(&',') && digits_from(end + 1) == 3 {
            end += 4;
        }
    }
    let decimals = digits_from(end + 1);
    if chars.get(end) == Some(&'.') && decimals > 0 {
        end += 1 + decimals;
    }
    end
}

/// Where the exponent at `end` ends, `end` if there is none. An `e` without digits is an error, unless it begins a word.
fn exponent_end(chars: &[char], end: usize) -> Result<usize, AnswerError> {
    if !matches!(chars.get(end), Some('e' | 'E')) {
        return Ok(end);
    }
    let sign = usize::from(matches!(chars.get(end + 1), Some('-' | '+')));
    let first = end + 1 + sign;
    let digits = chars.iter().skip(first).take_while(|char| char.is_ascii_digit()).count();
    match chars.get(end + 1) {
        _ if digits > 0 => Ok(first + digits),
        Some(next) if next.is_alphabetic() => Ok(end),
        _ => Err(AnswerError::NumberForm),
    }
}

/// The value of digits with separators, decimals and an exponent, unless it is beyond the range of numbers.
fn value(figure: &[char]) -> Result<f64, AnswerError> {
    let digits: String = figure.iter().filter(|&&char| char != ',').collect();
    let number = digits.parse::<f64>().map_err(|_| AnswerError::NumberForm)?;
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let underflows = number == 0.0 && mantissa.contains(|digit| matches!(digit, '1'..='9'));
    match number.is_finite() && !underflows {
        true => Ok(number),
        false => Err(AnswerError::NumberForm),
    }
}

/// Whether digits after `before` belong to a word or a unit: `room2`, `m^2`, `m^{-2}`, `x_1`.
fn belongs_to_word(before: &[char]) -> Result<bool, AnswerError> {
    if before.last().is_some_and(|&last| is_cased(last)) {
        return Ok(true);
    }
    let is_prefix = |char: &char| matches!(char, '+' | '-' | '{' | '(' | ' ');
    let length = before.len() - before.iter().rev().take_while(|char| is_prefix(char)).count();
    match before[..length].split_last() {
        Some(('^', base)) if is_of_word(base) => Ok(true),
        Some(('^', _)) => Err(AnswerError::NumberForm),
        Some(('_', base)) if length + 1 >= before.len() => {
            Ok(base.last().is_some_and(|last| last.is_alphabetic()))
        }
        _ => Ok(false),
    }
}

/// Whether `before` ends with a word, whatever closes after it: an exponent there is that of a unit.
fn is_of_word(before: &[char]) -> bool {
    let closes =
        |char: &char| " )]}$*⁻⁺".contains(*char) || is_superscript(*char) || is_subscript(*char);
    before.iter().rev().find(|char| !closes(char)).is_some_and(|char| char.is_alphabetic())
}

/// Letters that make one word with digits; those of scripts without upper and lower case do not.
fn is_cased(char: char) -> bool {
    char.is_alphabetic() && (char.is_lowercase() || char.is_uppercase())
}

/// Whether `between`, from a number to digits in a word, and these digits are no unit: `1h30`, `0x10`, `3 x2`.
fn continues(between: &[char], figure: &[char]) -> bool {
    let word: String = between.iter().skip_while(|char| **char == ' ').collect();
    let is_power = matches!(figure, ['2' | '3'])
        && !matches!(word.as_str(), "x" | "X" | "e" | "E" | "d" | "D");
    word.chars().all(char::is_alphabetic) && !is_power
}

/// Whether the number after `before`, in which another ends at `previous`, is negative. An error if `before` makes it one
/// that is not understood.
fn check_before(
    before: &[char],
    figure: &[char],
    previous: Option<usize>,
) -> Result<bool, AnswerError> {
    let (negative, before, signed) = match before.split_last() {
        Some((sign @ ('-' | '+'), left)) => (*sign == '-', left, true),
        _ => (false, before, false),
    };
    let last = before.last().copied();
    let is_joined = match last {
        Some(last) if signed => {
            is_cased(last) || last.is_numeric() || matches!(last, ')' | ']' | '}')
        }
        // `,5` is a fraction, `chairs,5` is not.
        Some(',') => !before
            .iter()
            .rev()
            .nth(1)
            .is_some_and(|left| left.is_alphabetic() || ")]}".contains(*left)),
        // `.5` after a word, or dots.
        Some(last) if figure.starts_with(&['.']) => is_cased(last) || last == '.',
        _ => false,
    };
    if is_joined || is_operand(before, figure, previous) {
        return Err(AnswerError::NumberForm);
    }
    Ok(negative)
}

/// Whether what is left of a number changes it: a sign apart, an operator, a word for a sign, a group of a thousand.
fn is_operand(before: &[char], figure: &[char], previous: Option<usize>) -> bool {
    let skips = |char: &char| MARKS.contains(*char) || (char.is_whitespace() && *char != '\n');
    let length = before.len() - before.iter().rev().take_while(|char| skips(char)).count();
    let (left, marks) = before.split_at(length);
    let Some(&last) = left.last() else { return false };
    if OPERATORS.contains(last) {
        return true;
    }
    if previous == Some(length) {
        let is_group = figure.len() >= 3
            && figure[..3].iter().all(char::is_ascii_digit)
            && figure.get(3).is_none_or(|next| !next.is_ascii_digit());
        return marks.iter().any(|mark| OPERATORS_BETWEEN.contains(*mark))
            || (is_group && marks.iter().all(|mark| mark.is_whitespace()));
    }
    let is_times = || {
        let factor = left[..length - 1].iter().rev().find(|char| **char != ' ');
        matches!(last, 'x' | 'X') && factor.is_some_and(char::is_ascii_digit)
    };
    let tail: String = left[length.saturating_sub(12)..].iter().collect::<String>().to_lowercase();
    last.is_alphabetic() && (is_times() || SIGN_WORDS.iter().any(|word| tail.ends_with(word)))
}

/// An error if `rest` makes the number before it one that is not understood.
fn check_after(rest: &[char]) -> Result<(), AnswerError> {
    let is_space = |char: &char| char.is_whitespace() && *char != '\n';
    let length =
        rest.iter().take_while(|char| !char.is_whitespace() && !char.is_alphabetic()).count();
    let joined = &rest[..length];
    let changes = |char: &char| matches!(*char, '^' | '√' | '±' | '∓' | UNKNOWN);
    let dangles = match joined {
        // `3-legged`
        ['-'] => !rest.get(1).is_some_and(|next| next.is_alphabetic()),
        ['-' | '+', ..] => true,
        _ => false,
    };
    let next = rest.iter().find(|char| !is_space(char));
    if dangles
        || joined.iter().any(|char| char.is_numeric() || changes(char))
        || next.is_some_and(changes)
        || is_scaled(rest)
    {
        return Err(AnswerError::NumberForm);
    }
    Ok(())
}

/// Whether `rest` multiplies the number before it: `3 thousand`, `3 and a half`, `3万`.
fn is_scaled(rest: &[char]) -> bool {
    let line: String = rest.iter().take(40).take_while(|char| **char != '\n').collect();
    let line = line.to_lowercase();
    let starts_with =
        |starts: &[&str]| starts.iter().any(|start| line.trim_start().starts_with(start));
    if starts_with(&SCALES) && !starts_with(&UNITS) {
        return true;
    }
    let mut words = line
        .split(|char: char| char.is_whitespace() || char == '-')
        .filter(|word| !word.is_empty())
        .map(|word| word.trim_matches(|char: char| !char.is_alphanumeric()));
    let mut word = words.next();
    if word == Some("and") {
        word = words.next();
    }
    if matches!(word, Some("a" | "an" | "one")) {
        word = words.next();
    }
    word.is_some_and(|word| SCALE_WORDS.contains(&word))
}

#[cfg(test)]
mod tests;
