//! The conversation, and the part of it in the model's context.

use embodied_r_data::system_prompt::{Given, SystemPrompt};
use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_vision::ImageEmbeddings;

use crate::chat_session::ChatTurn;

/// A conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    system: Option<SystemPrompt>,
    turns: Vec<ChatTurn>,
    /// The first turn in the context.
    first: usize,
    truncation_reported: bool,
    frames: Option<VideoFrames>,
}

/// The video that the conversation is about, as the model sees it.
#[derive(Debug)]
struct VideoFrames {
    /// A video, or separate images.
    frames: Vec<ImageEmbeddings>,
    /// The turn that shows them; the next one of the user if `None`.
    turn: Option<usize>,
}

/// A prompt that fits the context.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fit<P> {
    /// A prompt that needs no warning.
    Whole(P),
    /// The first prompt without the oldest turns; later ones are [`Fit::Whole`], to warn once.
    Truncated(P),
    /// The last message alone is too long.
    TooLong { tokens: usize, most: usize },
}

impl Conversation {
    pub(super) fn new(system: SystemPrompt) -> Self {
        let mut new = Self {
            system: None,
            turns: Vec::new(),
            first: 0,
            truncation_reported: false,
            frames: None,
        };
        match system {
            SystemPrompt::Own(text) => new.set_system(&text),
            preset @ SystemPrompt::Preset(_) => new.system = Some(preset),
        }
        new
    }

    /// Sets the system prompt; a blank one removes it.
    pub(super) fn set_system(&mut self, text: &str) {
        self.system = (!text.trim().is_empty()).then(|| SystemPrompt::Own(text.to_owned()));
    }

    /// Shows `frames` from the next message on, or none. They stay in the context if the turn that first shows them is
    /// dropped. Those before stay in the history.
    pub(super) fn set_frames(&mut self, frames: Option<Vec<ImageEmbeddings>>) {
        let new = frames.map(|frames| VideoFrames { frames, turn: None });
        if let Some(VideoFrames { frames, turn: Some(turn) }) =
            std::mem::replace(&mut self.frames, new)
            && let Some(turn) = self.turns.get_mut(turn.max(self.first))
        {
            turn.images.splice(0..0, frames);
        }
    }

    /// Whether the model sees frames of a video.
    pub(super) fn has_frames(&self) -> bool {
        self.frames.is_some()
    }

    /// Removes all turns, and the frames.
    pub(super) fn clear(&mut self) {
        self.turns.clear();
        self.frames = None;
        (self.first, self.truncation_reported) = (0, false);
    }

    /// Adds a user turn with its images.
    pub(super) fn push_user(&mut self, text: &str, images: Vec<ImageEmbeddings>) {
        if let Some(frames) = &mut self.frames {
            frames.turn.get_or_insert(self.turns.len());
        }
        self.turns.push(ChatTurn { message: ChatMessage::user(text), images });
    }

    /// Removes the last turn.
    pub(super) fn pop(&mut self) {
        self.turns.pop();
        self.first = self.first.min(self.turns.len());
        if let Some(frames) = &mut self.frames {
            frames.turn = frames.turn.filter(|turn| *turn < self.turns.len());
        }
    }

    pub(super) fn push_assistant(&mut self, text: String) {
        self.turns.push(ChatMessage::assistant(text).into());
    }

    /// All messages, the system prompt first.
    pub(super) fn messages(&self) -> Vec<ChatMessage> {
        self.from(0).into_iter().map(|turn| turn.message).collect()
    }

    /// The system prompt and the turns from `first` on, a user's turn.
    fn from(&self, first: usize) -> Vec<ChatTurn> {
        let mut turns = self.turns[first..].to_vec();
        if let Some(VideoFrames { frames, turn: Some(turn) }) = &self.frames
            && let Some(turn) = turns.get_mut(turn.saturating_sub(first))
        {
            turn.images.splice(0..0, frames.iter().cloned());
        }
        let system = self.system.iter().filter_map(|system| system.text(self.given()));
        let system = system.map(|text| ChatTurn::from(ChatMessage::system(text)));
        system.chain(turns).collect()
    }

    /// What the conversation is about: the video that the model sees, or else the last captions or images.
    fn given(&self) -> Given {
        if self.has_frames() {
            return Given::Frames;
        }
        let of = |turn: &ChatTurn| match Given::of_text(&turn.message.content) {
            Given::Text if !turn.images.is_empty() => Given::Images,
            given => given,
        };
        let users = self.turns.iter().filter(|turn| turn.message.role == "user");
        users.map(of).rfind(|given| *given != Given::Text).unwrap_or(Given::Text)
    }

    /// The prompt with as many of the last turns as fit into `most` tokens.
    pub(super) fn fit<P: AsRef<[u32]>>(
        &mut self,
        most: usize,
        prompt: impl Fn(&[ChatTurn]) -> anyhow::Result<P>,
    ) -> anyhow::Result<Fit<P>> {
        let mut first = self.first;
        loop {
            let ids = prompt(&self.from(first))?;
            let tokens = ids.as_ref().len();
            if tokens <= most {
                self.first = first;
                let warn =
                    first > 0 && !std::mem::replace(&mut self.truncation_reported, first > 0);
                return Ok(if warn { Fit::Truncated(ids) } else { Fit::Whole(ids) });
            }
            let later = self.turns.iter().enumerate().skip(first + 1);
            match later.into_iter().find(|(_, turn)| turn.message.role == "user") {
                Some((next, _)) => first = next,
                None => return Ok(Fit::TooLong { tokens, most }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use embodied_r_policy::WeightFormat;
    use embodied_r_vision::{PixelOptions, VisionEncoder};
    use image::RgbImage;

    use super::*;

    /// One token per character.
    fn prompt(turns: &[ChatTurn]) -> anyhow::Result<Vec<u32>> {
        let letters =
            |turn: &ChatTurn| turn.message.content.chars().map(u32::from).collect::<Vec<_>>();
        Ok(turns.iter().flat_map(letters).collect())
    }

    fn decoded(ids: &[u32]) -> String {
        ids.iter().filter_map(|id| char::from_u32(*id)).collect()
    }

    #[test]
    fn the_oldest_turns_are_dropped_and_it_is_reported_once() {
        let mut conversation = Conversation::new(SystemPrompt::Own("S".to_owned()));
        for (question, answer) in [("aaa", "bbb"), ("ccc", "ddd")] {
            conversation.push_user(question, vec![]);
            conversation.push_assistant(answer.into());
        }
        conversation.push_user("eee", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Truncated(ids) if decoded(ids) == "Scccdddeee"), "{fit:?}");
        conversation.push_assistant("fff".into());
        conversation.push_user("ggg", vec![]);
        let fit = conversation.fit(10, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if decoded(ids) == "Seeefffggg"), "{fit:?}");
        assert_eq!(conversation.messages().len(), 8);
    }

    #[test]
    fn a_message_that_never_fits_is_reported_with_its_length() {
        let mut conversation = Conversation::new(SystemPrompt::Own("".to_owned()));
        conversation.push_user("a", vec![]);
        conversation.push_assistant("b".into());
        conversation.push_user("much too long", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert_eq!(fit, Fit::TooLong { tokens: 13, most: 5 });
        conversation.pop();
        conversation.push_user("c", vec![]);
        let fit = conversation.fit(5, prompt).unwrap();
        assert!(matches!(&fit, Fit::Whole(ids) if decoded(ids) == "abc"), "{fit:?}");
    }

    /// Embeddings of images of 1, 2, … × 28 pixels: so many tokens.
    fn images(count: u32) -> Vec<ImageEmbeddings> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vision/tests/fixtures/nested");
        let encoder = VisionEncoder::load(&dir, &WeightFormat::F32.into()).unwrap();
        let encoder =
            encoder.with_pixels(PixelOptions { min_pixels: Some(1), ..PixelOptions::default() });
        let image = |tokens| encoder.encode_image(&RgbImage::new(28 * tokens, 28)).unwrap();
        (1..=count).map(image).collect()
    }

    /// The tokens of each image that each turn of the context shows.
    fn shown(conversation: &mut Conversation, most: usize) -> Vec<Vec<usize>> {
        let turns = std::cell::RefCell::default();
        let fit = conversation.fit(most, |from| {
            *turns.borrow_mut() = from.to_vec();
            prompt(from)
        });
        assert!(!matches!(fit.unwrap(), Fit::TooLong { .. }));
        let turns = turns.into_inner();
        turns.iter().map(|turn| turn.images.iter().map(ImageEmbeddings::tokens).collect()).collect()
    }

    #[test]
    fn frames_are_shown_once_and_outlive_the_turn_that_first_showed_them() {
        let images = images(4);
        let mut conversation = Conversation::new(SystemPrompt::Own("".to_owned()));
        conversation.push_user("aaa", vec![]);
        conversation.push_assistant("bbb".into());
        conversation.set_frames(Some(images[..2].to_vec()));
        conversation.push_user("ccc", vec![images[2].clone()]);
        conversation.push_assistant("ddd".into());
        let none = Vec::<usize>::new;
        assert_eq!(shown(&mut conversation, 20), [none(), none(), vec![1, 2, 3], none()]);
        conversation.push_user("eee", vec![]);
        assert_eq!(shown(&mut conversation, 20)[2..], [vec![1, 2, 3], none(), none()]);
        // The turn that showed them and an image of its own is dropped.
        assert_eq!(shown(&mut conversation, 5), [vec![1, 2]]);
        // Other frames: those before stay where they are.
        conversation.push_assistant("fff".into());
        conversation.set_frames(Some(vec![images[3].clone()]));
        conversation.push_user("ggg", vec![]);
        assert_eq!(shown(&mut conversation, 20), [vec![1, 2], none(), vec![4]]);
        conversation.set_frames(None);
        conversation.push_assistant("hhh".into());
        conversation.push_user("iii", vec![]);
        assert_eq!(shown(&mut conversation, 20)[2..], [vec![4], none(), none()]);
        assert_eq!(shown(&mut conversation, 5), [none()]);
    }

    #[test]
    fn frames_of_a_message_that_is_too_long_are_shown_with_the_next() {
        let mut conversation = Conversation::new(SystemPrompt::Own("".to_owned()));
        conversation.set_frames(Some(images(1)));
        conversation.push_user("much too long", vec![]);
        assert!(matches!(conversation.fit(5, prompt).unwrap(), Fit::TooLong { .. }));
        conversation.pop();
        conversation.push_user("a", vec![]);
        assert_eq!(shown(&mut conversation, 5), [[1]]);
        conversation.clear();
        conversation.push_user("a", vec![]);
        assert_eq!(shown(&mut conversation, 5), [vec![0usize; 0]]);
    }

    #[test]
    fn a_blank_system_prompt_is_removed() {
        let mut conversation = Conversation::new(SystemPrompt::Own("S".to_owned()));
        conversation.set_system(" ");
        conversation.push_user("a", vec![]);
        assert_eq!(conversation.messages(), [ChatMessage::user("a")]);
    }

    #[test]
    fn a_cleared_conversation_keeps_its_system_prompt() {
        let mut conversation = Conversation::new(SystemPrompt::Own("S".to_owned()));
        conversation.push_user("a", vec![]);
        conversation.clear();
        assert_eq!(conversation.messages(), [ChatMessage::system("S")]);
    }
}
