//! `embodied-r ask`.

mod direct;
mod trace;

use std::sync::Arc;
use std::time::Instant;

use crate::hub;
use anyhow::Context as _;
use embodied_r_data::prompts::multiple_choice_text;
use embodied_r_data::system_prompt::Given;
use embodied_r_policy::tokenizer::ChatMessage;
use embodied_r_rewards::prompt_end::whole_reply;

use crate::args::ask::AskArgs;
use crate::args::model::StoredModel;
use crate::chat_session::{ChatSession, ChatTurn, Echo, VisionMode};
use crate::exit::{self, Status, Usage};
use crate::output::outln;
use crate::video_captioner::VideoCaptioner;
use trace::AnswerTrace;

/// Ask a question about a video.
pub(crate) fn run(args: AskArgs) -> anyhow::Result<Status> {
    let options = options(&args.options)?;
    let question = match options.as_slice() {
        [] => args.question.trim().to_owned(),
        options => multiple_choice_text(
            &args.question,
            &options.iter().map(String::as_str).collect::<Vec<_>>(),
        ),
    };
    let policy =
        args.policy.clone().or_else(|| match args.captioner.captioner_base_url.is_empty() {
            true => args.captioner.captioner.clone(),
            false => None,
        });
    let missing =
        || Usage("give a language model with `--policy`, or a local `--captioner`".into());
    let policy = policy.ok_or_else(missing)?;
    if args.direct {
        return direct::run(&args, policy, &options, question);
    }
    // Fails on missing files before the slow captioning.
    let folder = hub::decoder(&policy, None)?;
    args.decoding.tokenizer(&folder)?;
    std::fs::metadata(&args.video)
        .with_context(|| format!("cannot read `{}`", args.video.display()))?;
    let began = Instant::now();
    let (captions, prompt, images) = {
        let (captioner, weights) = (&args.captioner, &args.weights);
        let captioner =
            VideoCaptioner::open(captioner, weights, &args.key_frames, &Arc::default(), None)?;
        let frames = captioner.video(&args.video);
        let captions = captioner.captions(&frames, &args.video, &question)?;
        let images = match args.save_trace {
            Some(_) => captioner.images(&frames)?,
            None => Vec::new(),
        };
        let prompt = captioner.prompt(&captions, &question);
        (captions, prompt, images)
    };
    let perceive_s = began.elapsed().as_secs_f64();
    for (index, caption) in captions.iter().enumerate() {
        let after =
            caption.action.iter().map(|action| format!("after {action}, ")).collect::<String>();
        let time = caption.time_s.map(|time| format!(" at {time:.1} s")).unwrap_or_default();
        eprintln!("frame {index}{time}: {after}{}", caption.view);
    }
    let mut trace = AnswerTrace {
        video: args.video.display().to_string(),
        question,
        keyframes: captions,
        prompt,
        completion: None,
        think: None,
        answer: None,
        option: None,
        perceive_s,
        reason_s: None,
    };
    // Captions take long, and the policy may fail.
    if let Some(folder) = &args.save_trace {
        trace::save(folder, &trace, &images)?;
    }
    let stored = StoredModel { model: policy, revision: None, weights: args.weights.clone() };
    let (completion, reason_s) = answer(&args, &stored, &trace.prompt).inspect_err(|_| {
        if let Some(folder) = &args.save_trace {
            eprintln!("the captions are kept in `{}`", folder.display());
        }
    })?;
    trace.reason_s = Some(reason_s);
    trace.answered(completion, &options);
    if let Some(folder) = &args.save_trace {
        trace::save(folder, &trace, &images)?;
    }
    print(&args, &trace)?;
    Ok(Status::Done)
}

/// The policy's completion, with the `<think>` that its prompt opens, and the seconds that it took without loading.
///
/// # Errors
/// It cannot be loaded, or the prompt is too long for it.
fn answer(args: &AskArgs, stored: &StoredModel, prompt: &str) -> anyhow::Result<(String, f64)> {
    let echo = if args.json { Echo::Off } else { Echo::Text };
    let mut session = ChatSession::load(stored, &args.decoding, echo, VisionMode::Disabled)?;
    let began = Instant::now();
    let system = args.decoding.system_prompt();
    let system = system.text(Given::of_text(prompt)).map(ChatMessage::system);
    let turns = system.into_iter().chain([ChatMessage::user(prompt)]).map(ChatTurn::from);
    let prompt = session.prompt(&turns.collect::<Vec<_>>())?;
    let (tokens, context) = (prompt.prompt.len(), session.model().max_model_len());
    if tokens >= context {
        return Err(exit::hint(
            format!(
                "the prompt with the captions has {tokens} tokens, but the context length of `{}` is {context}",
                stored.model
            ),
            "caption fewer key frames (lower `--max-frames` or `--threshold`), make captions shorter (lower \
             `--caption-tokens`), or give a `--policy` with a longer context",
        ));
    }
    let rendered = prompt.chat.text().to_owned();
    let completion = session.answer(prompt)?;
    Ok((whole_reply(&rendered, &completion).into_owned(), began.elapsed().as_secs_f64()))
}

fn print(args: &AskArgs, answered: &AnswerTrace) -> anyhow::Result<()> {
    if args.json {
        outln!("{}", serde_json::to_string(answered)?)?;
        return Ok(());
    }
    match (&answered.answer, &answered.option) {
        (Some(answer), Some(option)) => outln!("answer: {answer}. {option}")?,
        (Some(answer), None) => outln!("answer: {answer}")?,
        (None, _) => eprintln!("cannot parse an answer from the completion"),
    }
    if let Some(folder) = &args.save_trace {
        eprintln!("saved the trace to `{}`", folder.join(trace::PAGE).display());
    }
    Ok(())
}

/// The options' texts; letters, if given, must be A, B, C and so on.
fn options(given: &[String]) -> Result<Vec<String>, Usage> {
    let mut texts = Vec::with_capacity(given.len());
    for (option, due) in given.iter().zip('A'..='Z') {
        let (letter, text) = match option.split_once('=') {
            Some((letter, text)) if letter.trim().len() == 1 => {
                (letter.trim().to_uppercase(), text)
            }
            _ => (due.to_string(), option.as_str()),
        };
        if letter != due.to_string() {
            return Err(Usage(format!(
                "`--option {option}` must start with `{due}=`: give the options in order"
            )));
        }
        if text.trim().is_empty() {
            return Err(Usage(format!("`--option {option}` has no text")));
        }
        texts.push(text.trim().to_owned());
    }
    match texts.len() {
        1 => Err(Usage("a single `--option` is not a choice, give two or more".into())),
        n if n < given.len() => Err(Usage("more than 26 options; give at most 26".into())),
        _ => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(given: &[&str]) -> Result<Vec<String>, String> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        options(&given).map_err(|error| error.to_string())
    }

    #[test]
    fn options_have_letters_or_none() {
        assert_eq!(read(&["A=Left", "b = Right "]).unwrap(), ["Left", "Right"]);
        assert_eq!(
            read(&["Left", "x = 3"]).unwrap_err(),
            "`--option x = 3` must start with `B=`: give the options in order"
        );
        assert_eq!(read(&["Left", "at 3 = noon"]).unwrap(), ["Left", "at 3 = noon"]);
        assert!(read(&["A=Left"]).unwrap_err().contains("not a choice"));
        assert!(read(&["A=Left", "C=Right"]).unwrap_err().contains("`B=`"));
        assert!(read(&["A=", "B=b"]).unwrap_err().contains("has no text"));
    }
}
