//! What was typed: a message, or an order.

/// A line, or several joined.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Typed<'a> {
    Message(&'a str),
    System(&'a str),
    Clear,
    Save(&'a str),
    /// Shows a picture with the next message.
    Image(&'a str),
    /// Asks about a video from now on, or no longer.
    Video(&'a str),
    Help,
    Quit,
    /// An order that is none, and what to do.
    Fault(String),
}

impl<'a> Typed<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        if !text.starts_with('/') {
            return Self::Message(text.trim());
        }
        let (order, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match (order, rest) {
            ("/system", text) => Self::System(text),
            ("/save", "") => Self::Fault("`/save` needs the name of a file".into()),
            ("/save", file) => Self::Save(file),
            ("/image", "") => Self::Fault("`/image` needs the name of a picture".into()),
            ("/image", file) => Self::Image(file),
            ("/video", file) => Self::Video(file),
            ("/clear", "") => Self::Clear,
            ("/help", "") => Self::Help,
            ("/quit" | "/exit", "") => Self::Quit,
            ("/clear" | "/help" | "/quit" | "/exit", _) => {
                Self::Fault(format!("`{order}` takes nothing behind it"))
            }
            _ => Self::Fault(format!(
                "there is no `{order}`, `/help` lists what there is; a space before it makes it a \
                 message"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_begin_with_a_slash_and_all_else_is_said() {
        assert_eq!(Typed::read("/system be brief "), Typed::System("be brief"));
        assert_eq!(Typed::read("/save a file.json"), Typed::Save("a file.json"));
        assert_eq!(Typed::read("/video a b.mp4"), Typed::Video("a b.mp4"));
        assert_eq!(Typed::read("/image a.png"), Typed::Image("a.png"));
        assert_eq!(Typed::read("/quit"), Typed::Quit);
        assert_eq!(Typed::read(" /quit"), Typed::Message("/quit"));
        assert_eq!(Typed::read("1/2"), Typed::Message("1/2"));
    }

    #[test]
    fn an_order_that_is_none_says_what_to_do() {
        assert!(matches!(Typed::read("/save"), Typed::Fault(told) if told.contains("file")));
        assert!(matches!(Typed::read("/clear all"), Typed::Fault(told) if told.contains("/clear")));
        assert!(matches!(Typed::read("/etc"), Typed::Fault(told) if told.contains("/help")));
    }
}
