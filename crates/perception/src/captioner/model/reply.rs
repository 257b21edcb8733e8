//! Reading the model's reply.

use std::ops::Range;

use super::prompts::ACTIONS;

/// A later frame's reply, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The movement, in the words of the prompt where the model kept to them.
    pub(super) action: Option<String>,
    /// What is seen, on one line.
    pub(super) view: String,
}

/// Takes a reply of three numbered parts apart: the first is the movement, the second and third
/// together the view. Without the three numbers in order, or with nothing in the first part, the
/// movement is not known and the whole text is the view.
pub(super) fn parse(reply: &str) -> Told {
    let whole = || Told { action: None, view: plain(reply) };
    let Some([first, second, third]) = parts(reply) else {
        return whole();
    };
    let action = action(first);
    let view = [second, third].map(plain).join(" ").trim().to_owned();
    if action.is_empty() || view.is_empty() {
        return whole();
    }
    Told { action: Some(action), view }
}

/// `text` on one line, without surplus space and without Markdown's marks of emphasis.
pub(super) fn plain(text: &str) -> String {
    let text = text.replace("**", "").replace("__", "");
    let mut words = text.split_whitespace().peekable();
    // What is left of the emphasis around an item's number.
    while words.next_if(|word| word.chars().all(|c| "*_#".contains(c))).is_some() {}
    words.collect::<Vec<_>>().join(" ")
}

/// The texts behind `1.`, `2.` and `3.`.
fn parts(reply: &str) -> Option<[&str; 3]> {
    let numbers = |place| {
        let one = number(reply, 0, '1', place)?;
        let two = number(reply, one.end, '2', place)?;
        let three = number(reply, two.end, '3', place)?;
        Some([one, two, three])
    };
    // A number that begins a line is surely an item's; one within a line only perhaps.
    let [one, two, three] = numbers(Place::LineStart).or_else(|| numbers(Place::Anywhere))?;
    Some([&reply[one.end..two.start], &reply[two.end..three.start], &reply[three.end..]])
}

/// Where an item's number may stand.
#[derive(Clone, Copy)]
enum Place {
    /// At the start of a line, but for marks of lists, headings and emphasis.
    LineStart,
    /// Behind any space.
    Anywhere,
}

/// Where the number of an item is, from `from` on, with the marks before it: `digit` with a full
/// stop, bracket or colon behind it, and no decimal.
fn number(text: &str, from: usize, digit: char, place: Place) -> Option<Range<usize>> {
    text[from..].match_indices(digit).map(|(at, _)| from + at).find_map(|at| {
        let start = text[..at].trim_end_matches(|c| "*_#>-( \t".contains(c)).len();
        let apart = match place {
            Place::LineStart => start == 0 || text[..start].ends_with('\n'),
            Place::Anywhere => start < at || at == 0 || text[..at].ends_with('\n'),
        };
        let behind = &text[at + digit.len_utf8()..];
        let mark = behind.chars().next().filter(|c| matches!(c, '.' | ')' | ':'))?;
        let decimal = behind[mark.len_utf8()..].starts_with(|c: char| c.is_ascii_digit());
        let end = at + digit.len_utf8() + mark.len_utf8();
        (apart && start >= from && !decimal).then_some(start..end)
    })
}

/// The movement in the prompt's words where it names one of them, else in the model's.
fn action(part: &str) -> String {
    let text = plain(part);
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

    fn told(action: &str, view: &str) -> Told {
        Told { action: Some(action.into()), view: view.into() }
    }

    #[test]
    fn three_parts_become_movement_and_view() {
        let reply = "1. Rotate left\n2. A red door ahead.\n3. The lamp is to the right.";
        assert_eq!(
            parse(reply),
            told("rotate left", "A red door ahead. The lamp is to the right.")
        );
    }

    #[test]
    fn the_marks_of_markdown_do_not_matter() {
        for reply in [
            "**1.** Move forward.\n\n**2.** A door.\n\n**3.** None.",
            "1) move forward\n2) A door.\n3) None.",
            "### 1. *Move forward*\n### 2. A door.\n### 3. None.\n",
            "- 1. \"Move forward\"\n- 2. A door.\n- 3. None.",
            "Here is the list:\n1. Action: Move forward\n2. A door.\n3. None.",
            "1. Move forward 2. A door. 3. None.",
            "(1) Move forward\n(2) A door.\n(3) None.",
        ] {
            assert_eq!(
                parse(reply).action.as_deref(),
                Some("move forward"),
                "{reply:?} gave {:?}",
                parse(reply)
            );
            assert!(parse(reply).view.starts_with("A door."), "{:?}", parse(reply));
            assert!(parse(reply).view.contains("None."), "{:?}", parse(reply));
        }
    }

    #[test]
    fn words_with_emphasis_are_kept_without_it() {
        let reply = "1. **Move forward**\n2. **A white car** to the left.\n3. The *lamp* is not.";
        let view = "A white car to the left. The *lamp* is not.";
        assert_eq!(parse(reply), told("move forward", view));
    }

    #[test]
    fn a_figure_within_the_text_is_no_number_of_an_item() {
        let reply = "1. Move forward\n2. A table about 2.5 m away, room 3. ahead\n3. None.";
        assert_eq!(
            parse(reply),
            told("move forward", "A table about 2.5 m away, room 3. ahead None.")
        );
    }

    #[test]
    fn without_three_parts_the_whole_reply_is_the_view() {
        for reply in [
            "A door on\nthe left.",
            "1. Move forward\n2. A door.",
            "3. c\n2. b\n1. a",
            "1.\n2. b\n3. c",
        ] {
            let view = reply.replace('\n', " ");
            assert_eq!(parse(reply), Told { action: None, view }, "{reply:?}");
        }
    }

    #[test]
    fn words_outside_the_list_of_movements_are_kept() {
        let reply = "1. The agent turned around\n2. a\n3. b";
        assert_eq!(parse(reply).action.as_deref(), Some("The agent turned around"));
    }

    proptest! {
        #[test]
        fn any_three_plain_parts_are_found(
            action in "[a-z]{1,9}( [a-z]{1,9}){0,3}",
            second in "[A-Za-z][A-Za-z, ]{0,40}[a-z]\\.",
            third in "[A-Za-z][A-Za-z, ]{0,40}[a-z]\\.",
        ) {
            let reply = format!("1. {action}\n2. {second}\n3. {third}");
            let expected = told(&action, &plain(&format!("{second} {third}")));
            prop_assert_eq!(parse(&reply), expected);
        }

        #[test]
        fn nothing_is_added_to_a_reply(reply in "(?s)[123.)*\\- \na-zä]{0,60}") {
            let kept = parse(&reply);
            let kept = format!("{} {}", kept.action.unwrap_or_default(), kept.view);
            let letters = |text: &str| text.chars().filter(|c| c.is_alphabetic()).count();
            prop_assert!(letters(&kept) <= letters(&reply));
            prop_assert!(!kept.contains('\n'));
        }
    }
}
