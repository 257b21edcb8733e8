//! The pretraining curriculum: data and learning rate of each phase.

use std::cell::Cell;
use std::ops::Range;

use embodied_r_grpo::data::conversations;
use embodied_r_grpo::schedule::{LrSchedule, LrScheduler};
use embodied_r_grpo::settings::{Optim, OptimizerSettings};
use embodied_r_grpo::update::supervised::Example;
use embodied_r_policy::tokenizer::{ChatMessage, Tokenizer};

use crate::args::ModelArgs;
use crate::corpus::{self, Document};
use crate::lm;

/// Context length of the model: twice the quickstart's prompts with completions.
pub(super) const MAX_POSITIONS: usize = 2048;

/// Steps of learning-rate warmup.
pub(super) const WARMUP_STEPS: u64 = 100;

/// The token between documents.
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// A phase of the curriculum with its own learning-rate schedule.
pub(super) struct Phase {
    pub(super) steps: u64,
    learning_rate: f64,
    /// The document of a seed and an index.
    text: fn(u64, u64) -> Document,
    /// Documents mixed in with a share that decays linearly from 1 to 0 by the middle of the phase.
    decaying: Option<fn(u64, u64) -> Document>,
}

/// First plain lists; then lookups in lists and videos, which decay to the full corpus by the middle of the phase, as
/// rare skills are forgotten before other text depends on them; then documents with names, and chats with
/// one or several names, which would interfere with learning lookups earlier.
pub(super) fn phases(args: &ModelArgs) -> impl Iterator<Item = Phase> {
    let lookups = args.lookup_steps.min(args.steps);
    let chat = args.chat_steps.min(args.steps - lookups);
    let naming = args.naming_steps.min(args.steps - lookups - chat);
    [
        Phase::of(lookups, args.lookup_learning_rate, corpus::recall_document),
        Phase::of(
            args.steps - lookups - naming - chat,
            args.learning_rate,
            corpus::document_without_subject,
        )
        .after(corpus::lookup_document),
        Phase::of(naming, args.naming_learning_rate, corpus::document),
        Phase::of(chat, args.naming_learning_rate, corpus::chat_document),
    ]
    .into_iter()
    .filter(|phase| phase.steps > 0)
}

impl Phase {
    /// A phase on one kind of text.
    pub(super) fn of(steps: u64, learning_rate: f64, text: fn(u64, u64) -> Document) -> Self {
        Self { steps, learning_rate, text, decaying: None }
    }

    /// The same with documents mixed in, whose share decays.
    pub(super) fn after(self, earlier: fn(u64, u64) -> Document) -> Self {
        Self { decaying: Some(earlier), ..self }
    }

    /// The training settings.
    pub(super) fn settings(&self, tokens_per_step: usize) -> lm::LmSettings {
        lm::LmSettings {
            tokens_per_step,
            max_tokens_per_batch: tokens_per_step + MAX_POSITIONS,
            schedule: LrSchedule {
                kind: LrScheduler::Cosine,
                peak: self.learning_rate,
                warmup_steps: WARMUP_STEPS.min(self.steps),
                total_steps: self.steps,
            },
            optimizer: OptimizerSettings {
                optim: Optim::Muon,
                adam_beta1: 0.9,
                adam_beta2: 0.98,
                adam_epsilon: 1e-8,
                weight_decay: 0.05,
                max_grad_norm: 1.0,
            },
        }
    }

    /// Its documents; if they end early, the error is in `fault`.
    pub(super) fn documents<'a>(
        &'a self,
        tokenizer: &'a Tokenizer,
        args: &ModelArgs,
        fault: &'a Cell<Option<embodied_r_grpo::Error>>,
    ) -> impl Iterator<Item = Example> + 'a {
        Documents {
            tokenizer,
            seed: args.seed,
            phase: self,
            tokens: self.steps * args.tokens_per_step as u64,
            given: 0,
            index: 0,
            owed: 0.0,
            fault,
        }
    }
}

/// The tokens of a document's statements that are masked from the loss. Masked bytes begin and end where words do, so that the
/// parts between these bounds are tokenized as in the whole.
pub(super) fn masked(
    document: &Document,
    tokenizer: &Tokenizer,
) -> embodied_r_policy::Result<Vec<Range<usize>>> {
    let (mut bytes, mut tokens) = (0, 0);
    let mut before = |end: usize| -> embodied_r_policy::Result<usize> {
        tokens += tokenizer.encode(&document.statements[bytes..end])?.len();
        bytes = end;
        Ok(tokens)
    };
    document.masked.iter().map(|range| Ok(before(range.start)?..before(range.end)?)).collect()
}

/// A phase's text as tokens.
struct Documents<'a> {
    tokenizer: &'a Tokenizer,
    seed: u64,
    phase: &'a Phase,
    /// Tokens of the whole phase.
    tokens: u64,
    /// Tokens so far.
    given: u64,
    index: u64,
    /// Error accumulator: decaying documents that are due but not emitted yet.
    owed: f64,
    /// The error that ended the documents.
    fault: &'a Cell<Option<embodied_r_grpo::Error>>,
}

impl Documents<'_> {
    fn document(&mut self) -> Document {
        let Phase { text, decaying, .. } = self.phase;
        let progress = self.given as f64 / self.tokens as f64;
        if let Some(decaying) = decaying {
            self.owed += (1.0 - 2.0 * progress).max(0.0);
            if self.owed >= 1.0 {
                self.owed -= 1.0;
                return decaying(self.seed, self.index);
            }
        }
        text(self.seed, self.index)
    }

    fn example(&self, document: &Document) -> embodied_r_grpo::Result<Example> {
        let Document { system, context, statements, .. } = document;
        let masked = masked(document, self.tokenizer)?;
        if let Some(system) = system {
            let messages = [("system", *system), ("user", context), ("assistant", statements)];
            let messages = messages.map(|(role, content)| ChatMessage::new(role, content));
            let example = conversations::example(&messages, self.tokenizer)?;
            return Ok(Example { masked, ..example });
        }
        let prompt = self.tokenizer.encode(&format!("{END_OF_TEXT}{}", document.before()))?;
        let completion = self.tokenizer.encode(statements)?;
        Ok(Example { prompt: prompt.into(), completion, masked })
    }
}

impl Iterator for Documents<'_> {
    type Item = Example;

    fn next(&mut self) -> Option<Example> {
        let document = self.document();
        let example = self.example(&document).map_err(|fault| self.fault.set(Some(fault))).ok()?;
        self.index += 1;
        self.given += example.tokens() as u64;
        Some(example)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use clap::Parser as _;
    use embodied_r_policy::tokenizer::SpecialTokens;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ModelArgs,
    }

    /// The arguments of a run with these options.
    pub(in super::super) fn pretrain_args(options: &[&str]) -> ModelArgs {
        Cli::parse_from(["pretrain", "--out", "x"].iter().chain(options)).args
    }

    /// Asserts that the masked tokens of `example` are those of the masked text of `document`; returns their number.
    pub(in super::super) fn assert_masked(
        example: &Example,
        document: &Document,
        tokenizer: &Tokenizer,
    ) -> usize {
        let masked = example.masked.iter().map(|range| {
            tokenizer.decode(&example.completion[range.clone()], SpecialTokens::Keep).unwrap()
        });
        let Document { statements, masked: bytes, .. } = document;
        let expected: Vec<&str> = bytes.iter().map(|range| &statements[range.clone()]).collect();
        assert_eq!(masked.collect::<Vec<_>>(), expected, "{statements}");
        expected.len()
    }

    /// Whether each document of a phase equals that of `kind` at its index.
    pub(in super::super) fn are(
        phase: &Phase,
        args: &ModelArgs,
        kind: fn(u64, u64) -> Document,
    ) -> Vec<bool> {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base");
        let tokenizer = Tokenizer::from_dir(base.as_ref()).unwrap();
        let fault = Cell::new(None);
        let mut given = 0;
        let budget = phase.steps as usize * args.tokens_per_step;
        let examples = phase.documents(&tokenizer, args, &fault).take_while(|example| {
            given += example.tokens();
            given <= budget
        });
        let is_kind = |(index, example): (u64, Example)| {
            let Document { system, statements, .. } = kind(args.seed, index);
            let end = if system.is_some() { "<|im_end|>" } else { "" };
            let completion = tokenizer.decode(&example.completion, SpecialTokens::Keep).unwrap();
            completion == statements + end
        };
        let kinds = (0..).zip(examples).map(is_kind).collect();
        assert!(fault.take().is_none());
        kinds
    }

    #[test]
    fn lists_come_first_lookups_decay_by_the_middle_and_names_come_last() {
        let steps =
            ["--steps", "80", "--lookup-steps", "20", "--naming-steps", "20", "--chat-steps", "0"];
        let args = pretrain_args(&steps);
        let [first, second, third] = phases(&args).collect::<Vec<_>>().try_into().ok().unwrap();
        assert_eq!((first.steps, second.steps, third.steps), (20, 40, 20));

        let lists = are(&first, &args, corpus::recall_document);
        assert!(lists.len() > 50 && lists.iter().all(|is_list| *is_list));

        let lookups = are(&second, &args, corpus::lookup_document);
        let (begin, end) = lookups.split_at(lookups.len() * 2 / 3);
        assert!(lookups[..10].iter().filter(|is_lookup| **is_lookup).count() >= 8);
        assert!(begin.iter().any(|is_lookup| !is_lookup));
        assert!(end.iter().all(|is_lookup| !is_lookup));
        let unnamed = are(&second, &args, corpus::document_without_subject);
        assert!(lookups.iter().zip(&unnamed).all(|(a, b)| a != b));

        let named = are(&third, &args, corpus::document);
        assert!(named.len() > 50 && named.iter().all(|is_named| *is_named));
    }

    #[test]
    fn a_run_shorter_than_its_lookups_has_no_other_phase() {
        let args = pretrain_args(&["--steps", "5"]);
        let steps: Vec<u64> = phases(&args).map(|phase| phase.steps).collect();
        assert_eq!(steps, [5]);
    }
}
