//! Questions with images and videos as tokenized prompts, and conversations with images as examples.

use embodied_r_data::multimodal::{Message, Part, Role, Sample};
use embodied_r_data::prompts;
use embodied_r_data::system_prompt::{Given, SystemPrompt};
use embodied_r_media::laid_out::LaidOutSample;
use embodied_r_vision::{ImageLayout, MultimodalMessage, MultimodalPart, VisionProcessor};

use crate::data::assistant_turn::completion_of;
use crate::data::conversations::SftExamples;
use crate::data::length_limit::LengthLimit;
use crate::data::questions::{Prompts, TokenizedQuestion};
use crate::data::too_long::TooLong;
use crate::error::{Error, Result};
use crate::model::{ChatTokenizer, GenerationPrompt, Prompt};
use crate::update::supervised::Example;

/// Tokenizes every sample as a prompt with its images; prompts over `limit` are left out and counted.
///
/// A sample without a system message gets `system`.
///
/// # Errors
/// A question has no answer, the tokenizer or the chat template fails, or a prompt is over a `limit` that raises.
pub fn prompts(
    samples: Vec<LaidOutSample>,
    (text, processor): (&dyn ChatTokenizer, &VisionProcessor),
    system: &SystemPrompt,
    limit: &LengthLimit,
) -> Result<Prompts> {
    let (mut prompted, mut too_long) = (Vec::with_capacity(samples.len()), TooLong::default());
    for sample in samples {
        let prompt = question_prompt(&sample, system, (text, processor))?;
        let LaidOutSample { sample, .. } = sample;
        let Sample { question, media, .. } = sample;
        if question.answer.trim().is_empty() {
            let what = "has no `answer`; training and evaluation need one".into();
            return Err(Error::Question { id: question.id(), what });
        }
        match limit.allows(prompt.len()) {
            true => {
                let images = media.image_names();
                prompted.push(TokenizedQuestion { question, prompt, images });
            }
            false => {
                too_long.add(|| format!("the prompt of question `{}`", question.id()), prompt.len())
            }
        }
    }
    Ok(Prompts { questions: prompted, too_long: too_long.left_out(limit)? })
}

/// Every assistant's turn of the samples as an example with the messages before it; of a question without one, its answer
/// alone, after `system`. Examples over `limit` are left out and counted.
///
/// # Errors
/// A question has neither an assistant's turn nor an answer, or as [`prompts()`].
pub fn examples(
    samples: Vec<LaidOutSample>,
    (text, processor): (&dyn ChatTokenizer, &VisionProcessor),
    system: &SystemPrompt,
    limit: &LengthLimit,
) -> Result<SftExamples> {
    let (mut all, mut too_long) = (Vec::new(), TooLong::default());
    for mut sample in samples {
        let is_turn = |message: &Message| message.role == Role::Assistant;
        // Conversations have their own system messages, if any.
        let mut own = None;
        if !sample.sample.messages.iter().any(is_turn) {
            let question = &sample.sample.question;
            let answer = question.answer.trim();
            if answer.is_empty() {
                let what = "has no `answer`; SFT on questions needs one".into();
                return Err(Error::Question { id: question.id(), what });
            }
            let content = vec![Part::Text(prompts::answer_alone(answer))];
            sample.sample.messages.push(Message { role: Role::Assistant, content });
            own = system.text(Given::of_sample(&sample.sample));
        }
        let turns = sample.sample.messages.iter().enumerate();
        let turns: Vec<usize> =
            turns.filter(|(_, message)| is_turn(message)).map(|(turn, _)| turn).collect();
        for turn in turns.into_iter().filter(|turn| *turn > 0) {
            let of_sample = |error: Error| match error {
                Error::ChatTemplateChangesReply { .. } => Error::Question {
                    id: sample.sample.question.id(),
                    what: format!("cannot be trained on: {error}"),
                },
                error => error,
            };
            let example = example(&sample, turn, own, (text, processor)).map_err(of_sample)?;
            match limit.allows(example.tokens()) {
                true => all.push(example),
                false => {
                    let id = sample.sample.question.id();
                    too_long.add(|| format!("an example of `{id}`"), example.tokens());
                }
            }
        }
    }
    Ok(SftExamples { examples: all, too_long: too_long.left_out(limit)? })
}

/// The question as a prompt, without embeddings; `system` is its system message unless it has its own.
///
/// # Errors
/// The tokenizer or the chat template fails.
pub fn question_prompt(
    sample: &LaidOutSample,
    system: &SystemPrompt,
    model: (&dyn ChatTokenizer, &VisionProcessor),
) -> Result<Prompt> {
    let system = system.text(Given::of_sample(&sample.sample));
    prompt(sample, sample.sample.prompt(), system, model)
}

/// The prompt of some of the messages, with a generation prompt.
fn prompt(
    sample: &LaidOutSample,
    messages: &[Message],
    system: Option<&str>,
    (text, processor): (&dyn ChatTokenizer, &VisionProcessor),
) -> Result<Prompt> {
    let (messages, layouts) = rendered(sample, messages, system);
    let chat = text.apply_multimodal_template(&messages, GenerationPrompt::Append)?;
    let chat = processor.with_timestamps_of(chat, &layouts)?;
    Ok(processor.prompt(&text.encode(&chat)?, &layouts)?)
}

/// The assistant's turn `turn` as the completion of the messages before it.
fn example(
    sample: &LaidOutSample,
    turn: usize,
    system: Option<&str>,
    (text, processor): (&dyn ChatTokenizer, &VisionProcessor),
) -> Result<Example> {
    let messages = &sample.sample.messages;
    let prompt = prompt(sample, &messages[..turn], system, (text, processor))?;
    let before = rendered(sample, &messages[..turn], system).0;
    let whole = rendered(sample, &messages[..=turn], system).0;
    let before = text.apply_multimodal_template(&before, GenerationPrompt::Append)?;
    let whole = text.apply_multimodal_template(&whole, GenerationPrompt::None)?;
    let completion = completion_of(&before, &whole, &messages[turn].text(), text)?;
    Ok(Example::new(prompt, completion))
}

/// Messages for the chat template, and the layouts of their placeholders in order.
fn rendered(
    sample: &LaidOutSample,
    messages: &[Message],
    system: Option<&str>,
) -> (Vec<MultimodalMessage>, Vec<ImageLayout>) {
    let (mut images, mut videos) = (sample.images.iter(), sample.videos.iter());
    let mut layouts = Vec::new();
    let own_system = messages.iter().any(|message| message.role == Role::System);
    let system = system.filter(|_| !own_system).map(MultimodalMessage::system);
    let mut rendered: Vec<MultimodalMessage> = system.into_iter().collect();
    for message in messages {
        let mut content = Vec::new();
        for part in &message.content {
            match part {
                Part::Text(text) => content.push(MultimodalPart::Text { text: text.clone() }),
                Part::Image => {
                    layouts.extend(images.next().cloned());
                    content.push(MultimodalPart::Image);
                }
                Part::Video => {
                    for layout in videos.next().into_iter().flatten() {
                        layouts.push(layout.clone());
                        content.push(match layout.is_video() {
                            true => MultimodalPart::Video,
                            false => MultimodalPart::Image,
                        });
                    }
                }
            }
        }
        rendered.push(MultimodalMessage { role: message.role.as_str().to_owned(), content });
    }
    (rendered, layouts)
}
