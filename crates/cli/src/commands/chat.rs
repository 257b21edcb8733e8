//! `embodied-r chat`.

mod attachments;
mod command;
mod conversation;
mod input;

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Context;
use embodied_r_files::write_atomic;

use crate::args::chat::ChatArgs;
use crate::chat_session::{ChatSession, Echo, VisionMode};
use crate::direct::Direct;
use crate::exit::{self, Status};
use crate::hub;
use crate::output::out;
use attachments::Attachments;
use command::ChatCommand;
use conversation::{Conversation, Fit};
use input::{Input, InputEvent};

/// The output of `/help`.
const HELP: &str = "\
/system TEXT   set the system prompt; remove it without TEXT
/clear         start a new conversation
/video FILE    ask about a video from now on; stop without FILE
/image FILE    attach an image to the next message (vision-language models)
/save FILE     save the conversation as a JSON list of messages
/help          show this help
/quit          quit, as does Ctrl-D
End a line with `\\` to continue it on the next. Ctrl-C stops the generation.
Type a space before a message that starts with `/`.
";

/// Chat with a model.
pub(crate) fn run(args: ChatArgs) -> anyhow::Result<Status> {
    let direct = match args.direct {
        true => Some(direct(&args)?),
        false => None,
    };
    let vision = VisionMode::Enabled(args.view.pixels(args.captioner.max_pixels));
    let mut session = ChatSession::load(&args.stored, &args.decoding, Echo::Text, vision)?;
    let mut attachments = Attachments::new(&args, direct, &session);
    let mut conversation = Conversation::new(args.decoding.system_prompt());
    let mut input = Input::open()?;
    loop {
        let text = match input.message()? {
            InputEvent::Message(text) => text,
            InputEvent::Empty => continue,
            InputEvent::End => break,
        };
        session.stop().store(false, Ordering::Relaxed);
        match ChatCommand::read(&text) {
            ChatCommand::Message(text) => {
                answer(&mut session, &mut conversation, &mut attachments, text)?
            }
            ChatCommand::Video(file) => attachments.set_video(file, &session, &mut conversation),
            ChatCommand::Image(file) => attachments.add_image(file),
            ChatCommand::System(text) => conversation.set_system(text),
            ChatCommand::Clear => {
                conversation.clear();
                attachments.clear();
            }
            ChatCommand::Save(file) => save(&conversation, Path::new(file)),
            ChatCommand::Help => out!("{HELP}")?,
            ChatCommand::Quit => break,
            ChatCommand::Fault(message) => eprintln!("{message}"),
        }
    }
    attachments.log_counts();
    Ok(Status::Done)
}

/// How the model sees videos.
///
/// # Errors
/// The options of frames are invalid, or the model does not exist or does not see.
fn direct(args: &ChatArgs) -> anyhow::Result<Direct> {
    let direct = Direct::of_view(&args.view, args.media_limits())?;
    let dir = hub::with_vision_encoder(&args.stored.model, args.stored.revision.as_deref())?;
    direct.check_model(&dir, &args.stored.model)?;
    Ok(direct)
}

fn answer(
    session: &mut ChatSession,
    conversation: &mut Conversation,
    attachments: &mut Attachments<'_>,
    text: &str,
) -> anyhow::Result<()> {
    let Some(text) = attachments.with_captions(text) else { return Ok(()) };
    conversation.push_user(&text, attachments.take_images());
    let prompt = match conversation
        .fit(session.max_prompt_tokens(), |turns| session.prompt(turns))?
    {
        Fit::Whole(prompt) => prompt,
        Fit::Truncated(prompt) => {
            eprintln!("the conversation exceeds the context length: dropping its oldest turns");
            prompt
        }
        Fit::TooLong { tokens, most } => {
            eprintln!(
                "the message has {tokens} tokens with its template, the limit is {most}: shorten it{}",
                if conversation.has_frames() { ", or show less of the video" } else { "" }
            );
            conversation.pop();
            return Ok(());
        }
    };
    let completion = session.answer(prompt)?;
    conversation.push_assistant(completion);
    Ok(())
}

/// Saves the conversation; an error is printed and does not end it.
fn save(conversation: &Conversation, file: &Path) {
    let written = serde_json::to_vec_pretty(&conversation.messages())
        .context("cannot write the messages")
        .and_then(|json| Ok(write_atomic(file, &json)?));
    match written {
        Ok(()) => eprintln!("saved to `{}`", file.display()),
        Err(error) => exit::print(&error),
    }
}
