//! Markers in text: `<image>` and `<video>` stand for the next image or video.

use super::sample::{Message, Part, Role};

const IMAGE: &str = "<image>";
const VIDEO: &str = "<video>";

/// The pieces of a text with markers.
pub(super) fn split(text: &str) -> Vec<Part> {
    let (mut parts, mut rest) = (Vec::new(), text);
    let push_text = |parts: &mut Vec<Part>, text: &str| {
        if !text.is_empty() {
            parts.push(Part::Text(text.to_owned()));
        }
    };
    loop {
        let next = [(IMAGE, Part::Image), (VIDEO, Part::Video)]
            .into_iter()
            .filter_map(|(marker, part)| Some((rest.find(marker)?, marker, part)))
            .min_by_key(|(start, ..)| *start);
        let Some((start, marker, part)) = next else { break };
        push_text(&mut parts, &rest[..start]);
        parts.push(part);
        rest = &rest[start + marker.len()..];
    }
    push_text(&mut parts, rest);
    parts
}

/// The text with markers of these pieces.
pub(super) fn join(parts: &[Part]) -> String {
    let text = |part| match part {
        &Part::Image => IMAGE,
        &Part::Video => VIDEO,
        Part::Text(text) => text.as_str(),
    };
    parts.iter().map(text).collect()
}

/// Makes the placeholders match the numbers of images and videos. A kind without a placeholder gets them before the
/// text of the first user message, images first, as TRL and ms-swift do.
///
/// # Errors
/// What does not match.
pub(super) fn place(messages: &mut [Message], images: usize, videos: usize) -> Result<(), String> {
    let count = |part: &Part| {
        messages.iter().flat_map(|message| &message.content).filter(|&other| other == part).count()
    };
    let mut added = Vec::new();
    for (part, marker, kind, given) in
        [(Part::Image, IMAGE, "image", images), (Part::Video, VIDEO, "video", videos)]
    {
        match count(&part) {
            marked if marked == given => {}
            0 => added.extend(std::iter::repeat_n(part, given)),
            marked => {
                let plural = |count| if count == 1 { "" } else { "s" };
                return Err(format!(
                    "has {marked} `{marker}` marker{} but {given} {kind}{}",
                    plural(marked),
                    plural(given)
                ));
            }
        }
    }
    if added.is_empty() {
        return Ok(());
    }
    match messages.iter_mut().find(|message| message.role == Role::User) {
        Some(first) => {
            first.content.splice(..0, added);
            Ok(())
        }
        None => Err("has no user message to place images in".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(text: &str) -> Part {
        Part::Text(text.to_owned())
    }

    fn user(content: &[Part]) -> Message {
        Message { role: Role::User, content: content.to_vec() }
    }

    #[test]
    fn markers_split_the_text_and_whitespace_stays() {
        let found = split("<image>\nWhat is left of <image> in <video>?");
        let expected = [
            Part::Image,
            text("\nWhat is left of "),
            Part::Image,
            text(" in "),
            Part::Video,
            text("?"),
        ];
        assert_eq!(found, expected);
        assert_eq!(split(""), []);
        assert_eq!(split("<img> <IMAGE> <image"), [text("<img> <IMAGE> <image")]);
        assert_eq!(split("<<image>>"), [text("<"), Part::Image, text(">")]);
    }

    #[test]
    fn media_without_markers_come_before_the_first_user_message() {
        let mut messages = [
            Message { role: Role::System, content: vec![text("s")] },
            user(&[text("a")]),
            Message { role: Role::Assistant, content: vec![text("b")] },
            user(&[text("c")]),
        ];
        place(&mut messages, 2, 1).unwrap();
        assert_eq!(messages[1].content, [Part::Image, Part::Image, Part::Video, text("a")]);
        assert_eq!(messages[3].content, [text("c")]);
    }

    #[test]
    fn a_kind_with_markers_does_not_place_the_other() {
        let mut messages = [user(&[text("a"), Part::Video])];
        place(&mut messages, 1, 1).unwrap();
        assert_eq!(messages[0].content, [Part::Image, text("a"), Part::Video]);
    }

    #[test]
    fn other_counts_are_refused_with_both_numbers() {
        let parts = [Part::Image, text("a"), Part::Image];
        for (images, expected) in [
            (1, "has 2 `<image>` markers but 1 image"),
            (0, "has 2 `<image>` markers but 0 images"),
            (3, "has 2 `<image>` markers but 3 images"),
        ] {
            assert_eq!(place(&mut [user(&parts)], images, 0).unwrap_err(), expected);
        }
        let found = place(&mut [user(&[Part::Video])], 0, 2).unwrap_err();
        assert_eq!(found, "has 1 `<video>` marker but 2 videos");
    }

    proptest! {
        #[test]
        fn joined_parts_are_the_text(text in "(<image>|<video>|<|>|image|[a-z ü\n]){0,12}") {
            let parts = split(&text);
            prop_assert_eq!(join(&parts), text.clone());
            for part in &parts {
                if let Part::Text(piece) = part {
                    prop_assert!(!piece.is_empty());
                    prop_assert!(!piece.contains(IMAGE) && !piece.contains(VIDEO));
                }
            }
            let markers = parts.iter().filter(|part| !matches!(part, Part::Text(_))).count();
            prop_assert_eq!(markers, text.matches(IMAGE).count() + text.matches(VIDEO).count());
        }
    }
}
