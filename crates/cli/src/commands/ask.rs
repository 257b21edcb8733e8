//! `embodied-r ask`.

mod trace;

use std::time::Instant;

use anyhow::Context as _;
use embodied_r_data::prompts;
use embodied_r_data::question_set::lettered;
use embodied_r_perception::captioner::{self, Caption};
use embodied_r_policy::hub;
use embodied_r_policy::tokenizer::{ChatMessage, Tokenizer};
use embodied_r_rewards::answer::{answer_tag, letter, think_tag};
use serde::Serialize;

use crate::args::ask::AskArgs;
use crate::args::model::StoredModel;
use crate::exit::{Status, Usage};
use crate::output::outln;
use crate::perceiver::Perceiver;
use crate::speaker::{Show, Sight, Speaker, Turn};

/// What was found out about a video.
#[derive(Debug, Serialize)]
struct Answered {
    video: String,
    question: String,
    keyframes: Vec<Caption>,
    prompt: String,
    completion: String,
    think: Option<String>,
    /// The letter of an option, or what stands in the answer's tag.
    answer: Option<String>,
    /// The words of the option that was chosen.
    option: Option<String>,
    perceive_s: f64,
    reason_s: f64,
}

/// Ask a question about a video.
pub(crate) fn run(args: AskArgs) -> anyhow::Result<Status> {
    let options = options(&args.options)?;
    let question = match options.as_slice() {
        [] => args.question.trim().to_owned(),
        options => {
            lettered(&args.question, &options.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    let policy = args.policy.clone().or_else(|| match args.perceiver.base_url.is_empty() {
        true => args.perceiver.perceiver.clone(),
        false => None,
    });
    let missing = || Usage("name a language model (`--policy`)".into());
    let policy = policy.ok_or_else(missing)?;
    // Whatever is missing is told before a frame is described.
    let folder = hub::resolve(&policy, None)?;
    Tokenizer::from_dir(&folder)?;
    std::fs::metadata(&args.video)
        .with_context(|| format!("cannot read `{}`", args.video.display()))?;
    let began = Instant::now();
    let (captions, pictures) = {
        let perceiver = Perceiver::open(&args.perceiver, &args.weights, &args.key_frames)?;
        let footage = perceiver.footage(&args.video);
        let captions = perceiver.captions(&footage, &args.video, &question)?;
        let pictures = match args.save_trace {
            Some(_) => perceiver.pictures(&footage)?,
            None => Vec::new(),
        };
        (captions, pictures)
    };
    let perceive_s = began.elapsed().as_secs_f64();
    for (place, caption) in captions.iter().enumerate() {
        let after =
            caption.action.iter().map(|action| format!("after {action}, ")).collect::<String>();
        let time = caption.time_s.map(|time| format!(" at {time:.1} s")).unwrap_or_default();
        eprintln!("frame {place}{time}: {after}{}", caption.view);
    }
    let stored = StoredModel { model: policy, revision: None, weights: args.weights.clone() };
    let show = if args.json { Show::Nothing } else { Show::Words };
    let mut speaker = Speaker::load(&stored, &args.decoding, show, Sight::Blind)?;
    let system = args.decoding.system_prompt.as_deref().unwrap_or(prompts::system_prompt());
    let prompt = captioner::prompt(&captions, &question);
    let turns = [ChatMessage::system(system), ChatMessage::user(prompt.clone())].map(Turn::from);
    let began = Instant::now();
    let completion = speaker.answer(speaker.prompt(&turns)?)?;
    let chosen = (!options.is_empty()).then(|| letter(&completion).ok()).flatten();
    let place = chosen.and_then(|letter| (letter as usize).checked_sub('A' as usize));
    let answered = Answered {
        video: args.video.display().to_string(),
        question,
        prompt,
        think: think_tag(&completion).map(str::to_owned),
        answer: match options.is_empty() {
            true => answer_tag(&completion).map(|answer| answer.trim().to_owned()),
            false => chosen.map(String::from),
        },
        option: place.and_then(|place| options.get(place).cloned()),
        completion,
        keyframes: captions,
        perceive_s,
        reason_s: began.elapsed().as_secs_f64(),
    };
    if let Some(folder) = &args.save_trace {
        trace::save(folder, &answered, &pictures)?;
    }
    tell(&args, &answered)?;
    Ok(Status::Done)
}

fn tell(args: &AskArgs, answered: &Answered) -> anyhow::Result<()> {
    if args.json {
        outln!("{}", serde_json::to_string(answered)?)?;
        return Ok(());
    }
    match (&answered.answer, &answered.option) {
        (Some(answer), Some(option)) => outln!("answer: {answer}. {option}")?,
        (Some(answer), None) => outln!("answer: {answer}")?,
        (None, _) => eprintln!("the model gave no answer that can be read"),
    }
    if let Some(folder) = &args.save_trace {
        eprintln!("kept in `{}`", folder.join(trace::PAGE).display());
    }
    Ok(())
}

/// The options' texts in order: with letters they have to be A, B, C and so on.
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
                "the option `{option}` should be `{due}=…`: give them in order"
            )));
        }
        if text.trim().is_empty() {
            return Err(Usage(format!("the option `{option}` says nothing")));
        }
        texts.push(text.trim().to_owned());
    }
    match texts.len() {
        1 => Err(Usage("one `--option` is no choice, give two or more".into())),
        n if n < given.len() => Err(Usage("more options than letters".into())),
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
    fn options_come_with_letters_or_without() {
        assert_eq!(read(&["A=Left", "b = Right "]).unwrap(), ["Left", "Right"]);
        assert_eq!(
            read(&["Left", "x = 3"]).unwrap_err(),
            "the option `x = 3` should be `B=…`: give them in order"
        );
        assert_eq!(read(&["Left", "at 3 = noon"]).unwrap(), ["Left", "at 3 = noon"]);
        assert!(read(&["A=Left"]).unwrap_err().contains("no choice"));
        assert!(read(&["A=Left", "C=Right"]).unwrap_err().contains("`B=…`"));
        assert!(read(&["A=", "B=b"]).unwrap_err().contains("says nothing"));
    }
}
