//! `embodied-r ask --direct`: the policy sees the frames of the video itself.

use std::time::Instant;

use embodied_r_grpo::data::samples::question_prompt;
use embodied_r_inference::ChatPrompt;
use embodied_r_policy::tokenizer::SpecialTokens;

use super::print;
use super::trace::AnswerTrace;
use crate::args::ask::AskArgs;
use crate::args::model::StoredModel;
use crate::chat_session::{ChatSession, Echo, VisionMode};
use crate::direct::{self, Direct};
use crate::exit::{self, Status};
use crate::hub;

/// Answers `question` about the video.
pub(super) fn run(
    args: &AskArgs,
    policy: String,
    options: &[String],
    question: String,
) -> anyhow::Result<Status> {
    let direct = Direct::of_view(&args.view, args.media_limits())?;
    let dir = hub::with_vision_encoder(&policy, None)?;
    direct.check_model(&dir, &policy)?;
    let tokenizer = args.decoding.tokenizer(&dir)?;
    let began = Instant::now();
    let asked = direct.lay_out_video(&args.video, &question, &dir)?;
    let Some(seen) = &asked.seen else { return Ok(Status::Done) };
    let laid = &seen.samples[0];
    let prompt = question_prompt(
        laid,
        &args.decoding.system_prompt(),
        (&tokenizer, seen.images.processor()),
    )?;
    let perceive_s = began.elapsed().as_secs_f64();
    let stored = StoredModel { model: policy, revision: None, weights: args.weights.clone() };
    let echo = if args.json { Echo::Off } else { Echo::Text };
    let mut session = ChatSession::load(&stored, &args.decoding, echo, VisionMode::Disabled)?;
    let (tokens, context) = (prompt.len(), session.model().max_model_len());
    if tokens >= context {
        return Err(exit::hint(
            format!(
                "the prompt with the frames has {tokens} tokens, but the context length of `{}` is {context}",
                stored.model
            ),
            direct::FEWER_TOKENS,
        ));
    }
    let began = Instant::now();
    let store = direct.image_store(&seen.images, &dir, &stored.weights.placement()?);
    let prompt = direct::embedded(&prompt, None, &store)?;
    let text = tokenizer.decode(prompt.ids(), SpecialTokens::Keep)?;
    let completion = session.answer(ChatPrompt { chat: tokenizer.plain(&text), prompt })?;
    let mut trace = AnswerTrace {
        video: args.video.display().to_string(),
        question: question.clone(),
        keyframes: Vec::new(),
        prompt: question,
        completion: None,
        think: None,
        answer: None,
        option: None,
        perceive_s,
        reason_s: Some(began.elapsed().as_secs_f64()),
    };
    trace.answered(completion, options);
    print(args, &trace)?;
    Ok(Status::Done)
}
