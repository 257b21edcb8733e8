//! `embodied-r chat`.

mod conversation;
mod input;
mod typed;
mod watching;

use std::path::Path;

use anyhow::Context;
use embodied_r_data::prompts;
use embodied_r_data::write::write_atomic;

use crate::args::chat::ChatArgs;
use crate::exit::Status;
use crate::output::out;
use crate::speaker::{Show, Sight, Speaker};
use conversation::{Conversation, Fit};
use input::{Input, Said};
use typed::Typed;
use watching::Watching;

/// What `/help` shows.
const HELP: &str = "\
/system TEXT   set the system prompt; without TEXT leave it out
/clear         begin anew
/video FILE    ask about a video from now on; without FILE no longer
/image FILE    show a picture with the next message, to a model that can see
/save FILE     write the conversation as a JSON list of messages
/help          show this
/quit          end; so does Ctrl-D
A line that ends with `\\` goes on in the next. Ctrl-C stops an answer.
A message that begins with `/` needs a space before it.
";

/// Talk with a model.
pub(crate) fn run(args: ChatArgs) -> anyhow::Result<Status> {
    let sight = Sight::Open { max_pixels: args.perceiver.max_pixels };
    let mut speaker = Speaker::load(&args.stored, &args.decoding, Show::Words, sight)?;
    let mut watching = Watching::new(&args);
    let system = args.decoding.system_prompt.as_deref().unwrap_or(prompts::system_prompt());
    let mut conversation = Conversation::new(system);
    let mut input = Input::open()?;
    loop {
        let text = match input.message()? {
            Said::Message(text) => text,
            Said::Nothing => continue,
            Said::End => return Ok(Status::Done),
        };
        match Typed::read(&text) {
            Typed::Message(text) => answer(&mut speaker, &mut conversation, &mut watching, text)?,
            Typed::Video(file) => watching.turn_to(file, speaker.seeing()),
            Typed::Image(file) => watching.show(file, speaker.seeing()),
            Typed::System(text) => conversation.set_system(text),
            Typed::Clear => {
                conversation.clear();
                watching.put_away();
            }
            Typed::Save(file) => save(&conversation, Path::new(file)),
            Typed::Help => out!("{HELP}")?,
            Typed::Quit => return Ok(Status::Done),
            Typed::Fault(told) => eprintln!("{told}"),
        }
    }
}

fn answer(
    speaker: &mut Speaker,
    conversation: &mut Conversation,
    watching: &mut Watching<'_>,
    text: &str,
) -> anyhow::Result<()> {
    let Some(text) = watching.in_words(text) else { return Ok(()) };
    conversation.ask(&text, watching.pictures());
    let prompt = match conversation.fit(speaker.longest_prompt(), |turns| speaker.prompt(turns))? {
        Fit::Whole(prompt) => prompt,
        Fit::Cut(prompt) => {
            eprintln!(
                "the conversation is longer than the model takes: its oldest turns are left out"
            );
            prompt
        }
        Fit::TooLong { tokens, most } => {
            eprintln!(
                "the message has {tokens} tokens with its frame, the model takes {most}: shorten it"
            );
            conversation.take_back();
            return Ok(());
        }
    };
    let said = speaker.answer(prompt)?;
    conversation.answered(said);
    Ok(())
}

/// Writes the conversation; a fault is told and does not end it.
fn save(conversation: &Conversation, file: &Path) {
    let written = serde_json::to_vec_pretty(&conversation.messages())
        .context("cannot write the messages")
        .and_then(|json| Ok(write_atomic(file, &json)?));
    match written {
        Ok(()) => eprintln!("saved in `{}`", file.display()),
        Err(error) => eprintln!("{error:#}"),
    }
}
