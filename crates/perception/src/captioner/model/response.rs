//! Parsing the model's response.

use std::ops::Range;

use super::prompts::ACTIONS;

/// A parsed response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ParsedResponse {
    /// The movement, as the prompt spells it if the model followed the prompt.
    pub(super) action: Option<String>,
    /// What the frame shows, on one line.
    pub(super) view: String,
}

/// Parses a response of three numbered parts: the first is the movement, the second and third form the
/// view. Without three numbers in order, or with an empty part, the movement is unknown and the whole
/// text is the view.
pub(super) fn parse(response: &str) -> ParsedResponse {
    let unparsed = || ParsedResponse { action: None, view: normalize(response) };
    let Some([first, second, third]) = parts(response) else {
        return unparsed();
    };
    let action = action(first);
    let view = [second, third].map(normalize).join(" ").trim().to_owned();
    if action.is_empty() || view.is_empty() {
        return unparsed();
    }
    ParsedResponse { action: Some(action), view }
}

/// `text` on one line, without extra spaces and Markdown emphasis.
pub(super) fn normalize(text: &str) -> String {
    let text = text.replace("**", "").replace("__", "");
    let mut words = text.split_whitespace().peekable();
    // Remains of the emphasis around an item's number.
    while words.next_if(|word| word.chars().all(|c| "*_#".contains(c))).is_some() {}
    words.collect::<Vec<_>>().join(" ")
}

/// The texts after `1.`, `2.` and `3.`.
fn parts(response: &str) -> Option<[&str; 3]> {
    let markers = |position| {
        let one = marker(response, 0, '1', position)?;
        let two = marker(response, one.end, '2', position)?;
        let three = marker(response, two.end, '3', position)?;
        Some([one, two, three])
    };
    // A number at the start of a line is an item's; within a line it may not be.
    let [one, two, three] =
        markers(MarkerPosition::LineStart).or_else(|| markers(MarkerPosition::Anywhere))?;
    Some([&response[one.end..two.start], &response[two.end..three.start], &response[three.end..]])
}

/// Where an item's number may be.
#[derive(Clone, Copy)]
enum MarkerPosition {
    /// At the start of a line, after optional marks of lists, headings and emphasis.
    LineStart,
    /// After any space.
    Anywhere,
}

/// The range of an item's number from `from` on, with the marks before it: `digit` followed by a full
/// stop, bracket or colon, and not a decimal.
fn marker(text: &str, from: usize, digit: char, position: MarkerPosition) -> Option<Range<usize>> {
    text[from..].match_indices(digit).map(|(at, _)| from + at).find_map(|at| {
        let start = text[..at].trim_end_matches(|c| "*_#>-( \t".contains(c)).len();
        let is_separate = match position {
            MarkerPosition::LineStart => start == 0 || text[..start].ends_with('\n'),
            MarkerPosition::Anywhere => start < at || at == 0 || text[..at].ends_with('\n'),
        };
        let after = &text[at + digit.len_utf8()..];
        let mark = after.chars().next().filter(|c| matches!(c, '.' | ')' | ':'))?;
        let decimal = after[mark.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        let end = at + digit.len_utf8() + mark.len_utf8();
        (is_separate && start >= from && !decimal).then_some(start..end)
    })
}

/// The movement as the prompt spells it, if it is one of the prompt's; else as the model wrote it.
fn action(part: &str) -> String {
    let text = normalize(part);
    let text = text.strip_prefix("Action:").unwrap_or(&text);
    let text = text.trim_matches(|c: char| c.is_whitespace() || ".*_\"'`".contains(c));
    let lower = text.to_lowercase();
    match ACTIONS.iter().find(|action| **action == lower) {
        Some(action) => (*action).to_owned(),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(action: &str, view: &str) -> ParsedResponse {
        ParsedResponse { action: Some(action.into()), view: view.into() }
    }

    #[test]
    fn three_parts_become_movement_and_view() {
        let response = "1. Rotate left\n2. A red door ahead.\n3. The lamp is to the right.";
        assert_eq!(
            parse(response),
            parsed("rotate left", "A red door ahead. The lamp is to the right.")
        );
    }

    #[test]
    fn markdown_is_ignored() {
        for response in [
            "**1.** Move forward.\n\n**2.** A door.\n\n**3.** None.",
            "1) move forward\n2) A door.\n3) None.",
            "### 1. *Move forward*\n### 2. A door.\n### 3. None.\n",
            "- 1. \"Move forward\"\n- 2. A door.\n- 3. None.",
            "Here is the list:\n1. Action: Move forward\n2. A door.\n3. None.",
            "1. Move forward 2. A door. 3. None.",
            "(1) Move forward\n(2) A door.\n(3) None.",
        ] {
            assert_eq!(
                parse(response).action.as_deref(),
                Some("move forward"),
                "{response:?} gave {:?}",
                parse(response)
            );
            assert!(parse(response).view.starts_with("A door."), "{:?}", parse(response));
            assert!(parse(response).view.contains("None."), "{:?}", parse(response));
        }
    }

    #[test]
    fn emphasis_is_removed() {
        let response =
            "1. **Move forward**\n2. **A white car** to the left.\n3. The *lamp* is not.";
        let view = "A white car to the left. The *lamp* is not.";
        assert_eq!(parse(response), parsed("move forward", view));
    }

    #[test]
    fn a_number_within_the_text_is_not_an_item() {
        let response = "1. Move forward\n2. A table about 2.5 m away, room 3. ahead\n3. None.";
        assert_eq!(
            parse(response),
            parsed("move forward", "A table about 2.5 m away, room 3. ahead None.")
        );
    }

    #[test]
    fn without_three_parts_the_whole_response_is_the_view() {
        for response in [
            "A door on\nthe left.",
            "1. Move forward\n2. A door.",
            "3. c\n2. b\n1. a",
            "1.\n2. b\n3. c",
        ] {
            let view = response.replace('\n', " ");
            assert_eq!(parse(response), ParsedResponse { action: None, view }, "{response:?}");
        }
    }

    #[test]
    fn movements_outside_the_list_are_kept() {
        let response = "1. The agent turned around\n2. a\n3. b";
        assert_eq!(parse(response).action.as_deref(), Some("The agent turned around"));
    }

    proptest! {
        #[test]
        fn any_three_plain_parts_are_found(
            action in "[a-z]{1,9}( [a-z]{1,9}){0,3}",
            second in "[A-Za-z][A-Za-z, ]{0,40}[a-z]\\.",
            third in "[A-Za-z][A-Za-z, ]{0,40}[a-z]\\.",
        ) {
            let response = format!("1. {action}\n2. {second}\n3. {third}");
            let expected = parsed(&action, &normalize(&format!("{second} {third}")));
            prop_assert_eq!(parse(&response), expected);
        }

        #[test]
        fn nothing_is_added_to_a_response(response in "(?s)[123.)*\\- \na-zä]{0,60}") {
            let kept = parse(&response);
            let kept = format!("{} {}", kept.action.unwrap_or_default(), kept.view);
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
            prop_assert!(letters(&kept) <= letters(&response));
            prop_assert!(!kept.contains('\n'));
        }
    }
}
