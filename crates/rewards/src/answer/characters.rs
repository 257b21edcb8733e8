//! One form for the characters that Unicode has in several: full-width and enclosed letters, digits of any script, dashes.

/// The zeros of the decimal digits (`Nd` of Unicode 14); each is followed by its one to nine.
const ZEROS: [u32; 66] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66,
    0xde6, 0xe50, 0xed0, 0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90,
    0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620, 0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
    0x104a0, 0x10d30, 0x11066, 0x110f0, 0x11136, 0x111d0, 0x112f0, 0x11450, 0x114d0, 0x11650,
    0x116c0, 0x11730, 0x118e0, 0x11950, 0x11c50, 0x11d50, 0x11da0, 0x16a60, 0x16ac0, 0x16b50,
    0x1d7ce, 0x1d7d8, 0x1d7e2, 0x1d7ec, 0x1d7f6, 0x1e140, 0x1e2f0, 0x1e950, 0x1fbf0,
];

/// Enclosed letters: the first and the last of an alphabet.
const ENCLOSED: [(u32, u32); 7] = [
    (0x249c, 0x24b5),
    (0x24b6, 0x24cf),
    (0x24d0, 0x24e9),
    (0x1f110, 0x1f129),
    (0x1f130, 0x1f149),
    (0x1f150, 0x1f169),
    (0x1f170, 0x1f189),
];

/// Upper-case and lower-case alphabets in turn: bold, italic, script and others.
const MATHEMATICAL: std::ops::RangeInclusive<u32> = 0x1d400..=0x1d6a3;

/// The ASCII digit of a decimal digit of any script and width: `3` for `３` and `٣`.
pub fn decimal_digit(char: char) -> Option<char> {
    let code = u32::from(char);
    let zero = ZEROS[..ZEROS.partition_point(|&zero| zero <= code)].last()?;
    char::from_digit(code - zero, 10)
}

/// `text` with ASCII characters for full-width ones, mathematical letters, hyphens and decimal digits of any script, and
/// without invisible characters. An enclosed letter is in brackets: `(B)` for `Ⓑ`.
pub(crate) fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for char in text.chars() {
        if let Some(digit) = decimal_digit(char) {
            folded.push(digit);
        } else if let Some(letter) = enclosed_letter(char) {
            folded.extend(['(', letter, ')']);
        } else if !is_invisible(char) {
            folded.push(narrow(char));
        }
    }
    folded
}

/// A dash that can be a minus sign.
pub(super) fn is_dash(char: char) -> bool {
    matches!(
        char,
        '-' | '˗' | '\u{2010}'..='\u{2015}' | '−' | '─' | '━' | '➖' | '⸺' | '⸻' | '﹘' | '﹣'
    )
}

/// Superscript digits.
pub(super) fn is_superscript(char: char) -> bool {
    matches!(char, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹')
}

/// Subscript digits.
pub(super) fn is_subscript(char: char) -> bool {
    matches!(char, '₀'..='₉')
}

/// Fractions of one character, and `⅟`.
pub(super) fn is_fraction(char: char) -> bool {
    matches!(char, '¼'..='¾' | '⅐'..='⅟' | '↉')
}

/// Letters of the Latin alphabet.
pub(super) fn is_latin(char: char) -> bool {
    char.is_ascii_alphabetic()
        || matches!(char, 'ª' | 'º' | 'À'..='ɏ' | 'Ḁ'..='ỿ') && char.is_alphabetic()
}

fn enclosed_letter(char: char) -> Option<char> {
    let code = u32::from(char);
    let (first, _) = ENCLOSED.iter().find(|(first, last)| (*first..=*last).contains(&code))?;
    alphabet(code - first)
}

fn narrow(char: char) -> char {
    let code = u32::from(char);
    match char {
        '！'..='～' => char::from_u32(code - 0xfee0).unwrap_or(char),
        '\u{2010}' | '\u{2011}' | '﹣' => '-',
        '٫' => '.',
        '٬' => ',',
        '｡' => '。',
        // The letters that the mathematical alphabets have elsewhere.
        'ℬ' => 'B',
        'ℂ' | 'ℭ' => 'C',
        'ℰ' => 'E',
        'ℱ' => 'F',
        'ℋ' | 'ℌ' | 'ℍ' => 'H',
        '､' => '、',
        _ if MATHEMATICAL.contains(&code) => match (code - MATHEMATICAL.start()) % 52 {
            upper @ 0..26 => alphabet(upper).unwrap_or(char),
            lower => alphabet(lower - 26).map_or(char, |letter| letter.to_ascii_lowercase()),
        },
        other => other,
    }
}

/// The upper-case letter at `index`.
fn alphabet(index: u32) -> Option<char> {
    ('A'..='Z').nth(index as usize)
}

/// Soft hyphens, zero-width characters and marks of the writing direction.
fn is_invisible(char: char) -> bool {
    matches!(
        char,
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_digits_of_any_script_have_their_ascii_digit() {
        for (char, digit) in
            [('0', '0'), ('9', '9'), ('３', '3'), ('٣', '3'), ('۴', '4'), ('९', '9'), ('𝟗', '9')]
        {
            assert_eq!(decimal_digit(char), Some(digit), "{char}");
        }
        for char in ['a', ' ', '/', ':', '³', '₃', '③', '½', '三', 'Ⅲ'] {
            assert_eq!(decimal_digit(char), None, "{char}");
        }
        assert!(ZEROS.is_sorted());
    }

    #[test]
    fn letters_are_folded_to_ascii() {
        for (text, folded) in [
            ("Ｂ．ｂ：（１）", "B.b:(1)"),
            ("𝐁𝐛𝑩𝒃𝖡ℬℂ", "BbBbBBC"),
            ("Ⓑⓑ⒝🄑🄱🅑🅱", "(B)(B)(B)(B)(B)(B)(B)"),
            ("A\u{200b}B\u{ad}\u{feff}", "AB"),
            ("C\u{2011}shaped", "C-shaped"),
            ("é灯、–−½²", "é灯、–−½²"),
        ] {
            assert_eq!(fold(text), folded, "{text}");
        }
    }
}
