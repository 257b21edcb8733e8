//! Text about frames as examples for language modeling.

use std::cell::Cell;

use embodied_r_data::multimodal::{Message, Part, Role, Sample};
use embodied_r_data::question::Question;
use embodied_r_data::system_prompt::SystemPrompt;
use embodied_r_grpo::data::length_limit::{LengthLimit, TruncationStrategy};
use embodied_r_grpo::data::samples;
use embodied_r_grpo::update::supervised::Example;
use embodied_r_media::laid_out::LaidOutSample;
use embodied_r_policy::tokenizer::Tokenizer;
use embodied_r_sim::views::IMAGE;
use embodied_r_vision::VisionProcessor;

use super::frames::Shown;
use super::world::World;
use crate::corpus::Document;
use crate::pretrain::phases::{END_OF_TEXT, MAX_POSITIONS, masked};

/// An image in the raw text of a document.
const PLACEHOLDER: &str = "<|vision_start|><|image_pad|><|vision_end|>";

/// An endless stream of documents about places; it ends with a fault.
pub(super) struct Documents<'a, W: World> {
    tokenizer: &'a Tokenizer,
    processor: &'a VisionProcessor,
    places: &'a [Shown<W>],
    seed: u64,
    index: u64,
    fault: &'a Cell<Option<anyhow::Error>>,
}

impl<'a, W: World> Documents<'a, W> {
    pub(super) fn new(
        tokenizer: &'a Tokenizer,
        processor: &'a VisionProcessor,
        places: &'a [Shown<W>],
        seed: u64,
        fault: &'a Cell<Option<anyhow::Error>>,
    ) -> Self {
        Self { tokenizer, processor, places, seed, index: 0, fault }
    }

    fn example(&self, index: u64) -> anyhow::Result<Option<Example>> {
        if index.is_multiple_of(W::TEXT_EVERY) {
            return self.of(&W::text(self.seed, index), None);
        }
        let place = usize::try_from(index)? % self.places.len().max(1);
        let Some(shown) = self.places.get(place) else { return Ok(None) };
        self.of(&W::document(&shown.place, self.seed, index), Some(shown))
    }

    fn of(&self, document: &Document, shown: Option<&Shown<W>>) -> anyhow::Result<Option<Example>> {
        let layouts = shown.map(|shown| shown.layouts.clone()).unwrap_or_default();
        let Document { system, context, statements, .. } = document;
        let masked = masked(document, self.tokenizer)?;
        let Some(system) = system else {
            let before = document.before().replace(IMAGE, PLACEHOLDER);
            let prompt = self.tokenizer.encode(&format!("{END_OF_TEXT}{before}"))?;
            let prompt = self.processor.prompt(&prompt, &layouts)?;
            return Ok(Some(Example {
                prompt,
                completion: self.tokenizer.encode(statements)?,
                masked,
            }));
        };
        let text = |text: &str| Part::Text(text.to_owned());
        let mut content = Vec::new();
        for (index, part) in context.split(IMAGE).enumerate() {
            content.extend((index > 0).then_some(Part::Image));
            content.extend((!part.is_empty()).then(|| text(part)));
        }
        let messages = vec![
            Message { role: Role::System, content: vec![text(system)] },
            Message { role: Role::User, content },
            Message { role: Role::Assistant, content: vec![text(statements)] },
        ];
        let sample = Sample { messages, ..Sample::from_text(Question::default()) };
        let sample = LaidOutSample { sample, images: layouts, videos: Vec::new() };
        let limit =
            LengthLimit::of_examples(MAX_POSITIONS, MAX_POSITIONS, TruncationStrategy::Delete);
        // The documents have their own.
        let system = SystemPrompt::default();
        let text = (self.tokenizer as _, self.processor);
        let example = samples::examples(vec![sample], text, &system, &limit)?.examples.pop();
        Ok(example.map(|example| Example { masked, ..example }))
    }
}

impl<W: World> Iterator for Documents<'_, W> {
    type Item = Example;

    fn next(&mut self) -> Option<Example> {
        loop {
            let example = self.example(self.index);
            self.index += 1;
            match example {
                Ok(Some(example)) => return Some(example),
                Ok(None) if self.places.is_empty() => return None,
                // Over the context length.
                Ok(None) => {}
                Err(fault) => {
                    self.fault.set(Some(fault));
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frames::frame_table;
    use super::super::world::Arm;
    use super::*;
    use crate::pretrain::phases::tests::assert_masked;
    use crate::progress::Lines;

    #[test]
    fn documents_without_frames_are_mixed_in_and_what_is_made_up_is_masked() {
        let base = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/base/arm").as_ref();
        let tokenizer = Tokenizer::from_dir(base).unwrap();
        let (table, places) = frame_table::<Arm>(base, 0, 2, &Lines::default()).unwrap();
        let fault = Cell::new(None);
        let documents = Documents::new(&tokenizer, table.processor(), &places, 0, &fault);
        let (mut images, mut masked) = (Vec::new(), 0);
        for (index, example) in (0..9).zip(documents) {
            images.push(example.prompt.images().len());
            let document = match images.last() {
                Some(0) => Arm::text(0, index),
                _ => Arm::document(&places[index as usize % 2].place, 0, index),
            };
            masked += assert_masked(&example, &document, &tokenizer);
        }
        assert_eq!(images, [0, 1, 1, 0, 1, 1, 0, 1, 1]);
        assert!(masked > 10, "{masked}");
        assert!(fault.take().is_none());
    }
}
