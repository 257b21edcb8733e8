//! `embodied-r robot bench`.

mod judge;

use std::path::{Path, PathBuf};

use embodied_r_data::multimodal::{Media, MediaFile, Message, Part, Role, Sample, SampleSet};
use embodied_r_data::{Question, RecordPlace};
use embodied_r_files::{write_atomic, write_json};
use embodied_r_policy::SamplingSettings;
use embodied_r_policy::tokenizer::ChatTemplateKwargs;
use embodied_r_robot::bench::{
    Agreement, BenchQuestion, Summary, answer_of, exact_score, markdown, read_questions,
    system_prompt,
};
use serde_json::{Map, Value, json};

use crate::args::direct::{MediaLimits, ViewArgs};
use crate::args::model::{DecodingArgs, GenerationConfig, ModelArgs};
use crate::args::reasoner::ReasonerArgs;
use crate::args::robot::bench::BenchArgs;
use crate::args::system_prompt::SystemPromptArgs;
use crate::commands::infer;
use crate::direct::Direct;
use crate::exit::{Status, Usage};
use crate::output::{out, outln};
use crate::reasoner::Reasoner;

/// The name of the rules among the judges.
const RULES: &str = "rules";

/// Score a model's answers to open questions.
pub(super) fn run(args: BenchArgs) -> anyhow::Result<Status> {
    let mut questions = read_questions(&args.data)?;
    questions.truncate(args.limit.unwrap_or(usize::MAX));
    if args.judge.judge.is_some() && questions.iter().all(|question| question.facts.is_none()) {
        let data = args.data.display();
        let what = format!(
            "`--judge exact` needs questions with `facts`, which `{data}` has none of; use `--judge-base-url`"
        );
        return Err(Usage(what).into());
    }
    let judge = judge::RemoteJudge::new(&args.judge, &args.output)?;
    let answers = answer(&args, &questions)?;
    let mut judges: Vec<(String, Vec<Option<u8>>)> = Vec::new();
    if let Some(judge) = judge {
        judges.push((judge.name().to_owned(), judge.scores(&questions, &answers.texts)?));
    }
    if args.judge.judge.is_some() {
        let score = |(question, answer): (&BenchQuestion, &String)| {
            let facts = question.facts.as_ref()?;
            Some(exact_score(facts, answer, args.judge.movement_epsilon))
        };
        let scores = questions.iter().zip(&answers.texts).map(score).collect();
        judges.push((RULES.to_owned(), scores));
    }
    report(&args, &questions, &answers.texts, judges)?;
    // So that an interrupted run of the judge finds the answers.
    answers.journal.remove()?;
    Ok(Status::Done)
}

/// The answers of the model, without reasoning, in order.
struct Answers {
    texts: Vec<String>,
    journal: infer::Journal,
}

/// Lets the model answer with greedy decoding; resumes an interrupted run.
fn answer(args: &BenchArgs, questions: &[BenchQuestion]) -> anyhow::Result<Answers> {
    let model = ModelArgs {
        model: Some(args.model.model.clone()),
        revision: args.model.revision.clone(),
        weights: args.model.weights.clone(),
        decoding: DecodingArgs {
            sampling: SamplingSettings::default(),
            generation_config: GenerationConfig::None,
            max_new_tokens: args.max_new_tokens,
            seed: 0,
            // The questions have their own.
            system: SystemPromptArgs::default(),
            chat_template_kwargs: ChatTemplateKwargs::default(),
        },
        batch: args.batch,
    };
    let limits = MediaLimits { max_pixels: args.max_pixels, ..MediaLimits::default() };
    let view = ViewArgs { min_pixels: args.min_pixels, ..ViewArgs::default() };
    let direct = Direct::of_view(&view, limits)?;
    let reasoner = Reasoner::new(&ReasonerArgs { model, api: args.api.clone() }, Some(&direct))?;
    let asked = reasoner.lay_out(samples(&args.data, questions))?;
    let output = args.output.join("answers.json");
    let (completions, journal) = infer::sample(&asked, &reasoner, 1, &output)?;
    let mut records = asked.into_records();
    let mut texts = Vec::with_capacity(records.len());
    for (record, mut completions) in records.iter_mut().zip(completions) {
        record.content = completions.pop();
        texts.push(answer_of(record.content.as_deref().unwrap_or_default()).to_owned());
    }
    write_json(&output, &records)?;
    Ok(Answers { texts, journal })
}

/// The questions as samples for the model, with the system prompt of their type.
fn samples(path: &Path, questions: &[BenchQuestion]) -> SampleSet {
    let folder = path.parent().unwrap_or(Path::new(""));
    let sample = |(index, question): (usize, &BenchQuestion)| {
        let image = folder.join(&question.image);
        let message = |role, content| Message { role, content };
        Sample {
            question: record(index, question, &image),
            messages: vec![
                message(Role::System, vec![Part::Text(system_prompt(question.kind))]),
                message(Role::User, vec![Part::Image, Part::Text(question.question.clone())]),
            ],
            media: Media { images: vec![MediaFile::Path(image)], videos: Vec::new() },
            captioned: None,
        }
    };
    let place = |index| RecordPlace { path: path.into(), index };
    SampleSet {
        samples: questions.iter().enumerate().map(sample).collect(),
        places: (0..questions.len()).map(place).collect(),
        ..SampleSet::empty(vec![path.to_owned()])
    }
}

fn record(index: usize, question: &BenchQuestion, image: &Path) -> Question {
    let image = PathBuf::from(image);
    let extra = [
        ("images", json!([image])),
        ("task", json!(question.task)),
        ("split", json!(question.split)),
    ];
    Question {
        question_id: json!(index),
        question_category: question.kind.name().to_owned(),
        question: question.question.clone(),
        answer: question.answer.clone(),
        extra: extra
            .map(|(name, value)| (name.to_owned(), value))
            .into_iter()
            .collect::<Map<_, _>>(),
        ..Question::default()
    }
}

/// Writes and prints the scores.
fn report(
    args: &BenchArgs,
    questions: &[BenchQuestion],
    answers: &[String],
    judges: Vec<(String, Vec<Option<u8>>)>,
) -> anyhow::Result<()> {
    let agreement = match judges.as_slice() {
        [(_, a), (_, b)] => Agreement::new(a, b),
        _ => None,
    };
    let lines: Vec<Value> = questions
        .iter()
        .zip(answers)
        .enumerate()
        .map(|(index, (question, answer))| {
            let scores: Map<String, Value> =
                judges.iter().map(|(name, scores)| (name.clone(), json!(scores[index]))).collect();
            json!({"type": question.kind, "split": question.split, "task": question.task,
                "question": question.question, "reference": question.answer, "answer": answer,
                "scores": scores})
        })
        .collect();
    let summaries: Vec<(String, Summary)> = judges
        .into_iter()
        .map(|(name, scores)| (name, Summary::new(questions, &scores, args.seed)))
        .collect();
    let of_judges: Map<String, Value> =
        summaries.iter().map(|(name, summary)| (name.clone(), json!(summary))).collect();
    let scores = json!({"model": args.model.model, "data": args.data, "judges": of_judges,
        "agreement": agreement, "questions": lines});
    let text = markdown(&args.model.model, &summaries, agreement);
    write_json(&args.output.join("scores.json"), &scores)?;
    write_atomic(&args.output.join("report.md"), text.as_bytes())?;
    match args.json {
        true => outln!("{scores}")?,
        false => out!("{text}")?,
    }
    Ok(())
}
