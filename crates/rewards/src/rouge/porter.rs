//! Porter's stemmer (M. F. Porter, "An algorithm for suffix stripping", 1980) with NLTK's extensions.

/// Words with a stem of their own.
const IRREGULAR: [(&str, &str); 16] = [
    ("sky", "sky"),
    ("skies", "sky"),
    ("dying", "die"),
    ("lying", "lie"),
    ("tying", "tie"),
    ("news", "news"),
    ("innings", "inning"),
    ("inning", "inning"),
    ("outings", "outing"),
    ("outing", "outing"),
    ("cannings", "canning"),
    ("canning", "canning"),
    ("howe", "howe"),
    ("proceed", "proceed"),
    ("exceed", "exceed"),
    ("succeed", "succeed"),
];

/// A suffix and what replaces it.
type Rule = (&'static str, &'static str);

const STEP_2: [Rule; 22] = [
    ("ational", "ate"),
    ("tional", "tion"),
    ("enci", "ence"),
    ("anci", "ance"),
    ("izer", "ize"),
    ("bli", "ble"),
    ("alli", "al"),
    ("entli", "ent"),
    ("eli", "e"),
    ("ousli", "ous"),
    ("ization", "ize"),
    ("ation", "ate"),
    ("ator", "ate"),
    ("alism", "al"),
    ("iveness", "ive"),
    ("fulness", "ful"),
    ("ousness", "ous"),
    ("aliti", "al"),
    ("iviti", "ive"),
    ("biliti", "ble"),
    ("fulli", "ful"),
    ("logi", "log"),
];

const STEP_3: [Rule; 7] = [
    ("icate", "ic"),
    ("ative", ""),
    ("alize", "al"),
    ("iciti", "ic"),
    ("ical", "ic"),
    ("ful", ""),
    ("ness", ""),
];

/// In the order in which they are tried.
const STEP_4: [&str; 19] = [
    "al", "ance", "ence", "er", "ic", "able", "ible", "ant", "ement", "ment", "ent", "ion", "ou",
    "ism", "ate", "iti", "ous", "ive", "ize",
];

/// The stem of a word of lower-case ASCII letters and digits.
pub(super) fn stem(word: &str) -> String {
    if let Some((_, stem)) = IRREGULAR.iter().find(|(other, _)| *other == word) {
        return (*stem).to_owned();
    }
    if word.len() <= 2 {
        return word.to_owned();
    }
    let mut word = word.to_owned();
    step_1a(&mut word);
    step_1b(&mut word);
    step_1c(&mut word);
    step_2(&mut word);
    replace_first(&mut word, &STEP_3, |stem| measure(stem) > 0);
    step_4(&mut word);
    step_5(&mut word);
    word
}

/// For each letter whether it is a consonant: no vowel, and no `y` after a consonant.
fn consonants(word: &str) -> Vec<bool> {
    let mut flags: Vec<bool> = Vec::with_capacity(word.len());
    for byte in word.bytes() {
        flags.push(match byte {
            b'a' | b'e' | b'i' | b'o' | b'u' => false,
            b'y' => flags.last().is_none_or(|&before| !before),
            _ => true,
        });
    }
    flags
}

/// How often a vowel is followed by a consonant.
fn measure(stem: &str) -> usize {
    consonants(stem).windows(2).filter(|pair| !pair[0] && pair[1]).count()
}

fn has_vowel(stem: &str) -> bool {
    consonants(stem).contains(&false)
}

fn ends_with_double_consonant(word: &str) -> bool {
    match word.as_bytes() {
        [.., first, second] => first == second && consonants(word).last() == Some(&true),
        _ => false,
    }
}

/// Consonant, vowel, consonant other than `w`, `x` and `y`; or just a vowel and a consonant.
fn ends_with_short_syllable(word: &str) -> bool {
    match consonants(word).as_slice() {
        [.., true, false, true] => !word.ends_with(['w', 'x', 'y']),
        [false, true] => true,
        _ => false,
    }
}

/// Applies the first rule whose suffix the word has, if its stem meets the condition.
fn replace_first(word: &mut String, rules: &[Rule], condition: impl Fn(&str) -> bool) {
    let Some((suffix, replacement)) = rules.iter().find(|(suffix, _)| word.ends_with(suffix))
    else {
        return;
    };
    let length = word.len() - suffix.len();
    if condition(&word[..length]) {
        word.truncate(length);
        word.push_str(replacement);
    }
}

fn step_1a(word: &mut String) {
    match word.ends_with("ies") && word.len() == 4 {
        true => word.truncate(3),
        false => {
            replace_first(word, &[("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", "")], |_| true);
        }
    }
}

fn step_1b(word: &mut String) {
    if word.ends_with("ied") {
        let kept = if word.len() == 4 { 1 } else { 2 };
        return word.truncate(word.len() - kept);
    }
    if word.ends_with("eed") {
        return replace_first(word, &[("eed", "ee")], |stem| measure(stem) > 0);
    }
    let stem = ["ed", "ing"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix).filter(|stem| has_vowel(stem)));
    let Some(length) = stem.map(str::len) else { return };
    word.truncate(length);
    if word.ends_with("at") || word.ends_with("bl") || word.ends_with("iz") {
        word.push('e');
    } else if ends_with_double_consonant(word) {
        if !word.ends_with(['l', 's', 'z']) {
            word.pop();
        }
    } else if measure(word) == 1 && ends_with_short_syllable(word) {
        word.push('e');
    }
}

fn step_1c(word: &mut String) {
    let ends_with_consonant = |stem: &str| consonants(stem).last() == Some(&true);
    replace_first(word, &[("y", "i")], |stem| stem.len() > 1 && ends_with_consonant(stem));
}

fn step_2(word: &mut String) {
    // `alli` may leave another suffix of this step.
    while word.strip_suffix("alli").is_some_and(|stem| measure(stem) > 0) {
        word.truncate(word.len() - 2);
    }
    // The `l` of `logi` belongs to what is measured.
    let is_logi = word.ends_with("logi");
    let measured = |stem: &str| if is_logi { measure(&format!("{stem}l")) } else { measure(stem) };
    replace_first(word, &STEP_2, |stem| measured(stem) > 0);
}

fn step_4(word: &mut String) {
    let Some(suffix) = STEP_4.iter().find(|suffix| word.ends_with(**suffix)) else { return };
    let stem = &word[..word.len() - suffix.len()];
    if measure(stem) > 1 && (*suffix != "ion" || stem.ends_with(['s', 't'])) {
        word.truncate(word.len() - suffix.len());
    }
}

fn step_5(word: &mut String) {
    if let Some(stem) = word.strip_suffix('e') {
        let measure = measure(stem);
        if measure > 1 || measure == 1 && !ends_with_short_syllable(stem) {
            word.pop();
        }
    }
    if word.ends_with("ll") && measure(&word[..word.len() - 1]) > 1 {
        word.pop();
    }
}
