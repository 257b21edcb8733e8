//! Parses input into messages and slash commands.

/// A message or a slash command.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChatCommand<'a> {
    Message(&'a str),
    System(&'a str),
    Clear,
    Save(&'a str),
    /// Attaches an image to the next message.
    Image(&'a str),
    /// Sets the video that questions are about, or clears it.
    Video(&'a str),
    Help,
    Quit,
    /// An invalid command, with the error message.
    Fault(String),
}

impl<'a> ChatCommand<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        if !text.starts_with('/') {
            return Self::Message(text.trim());
        }
        let (command, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim();
        match (command, rest) {
            ("/system", text) => Self::System(text),
            ("/save", "") => Self::Fault("`/save` needs a file name".into()),
            ("/save", file) => Self::Save(file),
            ("/image", "") => Self::Fault("`/image` needs a file name".into()),
            ("/image", file) => Self::Image(file),
            ("/video", file) => Self::Video(file),
            ("/clear", "") => Self::Clear,
            ("/help", "") => Self::Help,
            ("/quit" | "/exit", "") => Self::Quit,
            ("/clear" | "/help" | "/quit" | "/exit", _) => {
                Self::Fault(format!("`{command}` takes no argument"))
            }
            _ => Self::Fault(format!(
                "unknown command `{command}`; see `/help`, or type a space before it to send it as a \
                 message"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_start_with_a_slash_and_all_else_is_a_message() {
        assert_eq!(ChatCommand::read("/system be brief "), ChatCommand::System("be brief"));
        assert_eq!(ChatCommand::read("/save a file.json"), ChatCommand::Save("a file.json"));
        assert_eq!(ChatCommand::read("/video a b.mp4"), ChatCommand::Video("a b.mp4"));
        assert_eq!(ChatCommand::read("/image a.png"), ChatCommand::Image("a.png"));
        assert_eq!(ChatCommand::read("/quit"), ChatCommand::Quit);
        assert_eq!(ChatCommand::read(" /quit"), ChatCommand::Message("/quit"));
        assert_eq!(ChatCommand::read("1/2"), ChatCommand::Message("1/2"));
    }

    #[test]
    fn an_invalid_command_says_what_to_do() {
        assert!(
            matches!(ChatCommand::read("/save"), ChatCommand::Fault(fault) if fault.contains("file"))
        );
        assert!(
            matches!(ChatCommand::read("/clear all"), ChatCommand::Fault(fault) if fault.contains("/clear"))
        );
        assert!(
            matches!(ChatCommand::read("/etc"), ChatCommand::Fault(fault) if fault.contains("/help"))
        );
    }
}
