//! GRPO on a vision-language model, compared with `transformers` (`scripts/parity/make_vision_loss_fixtures.py`).

#![allow(clippy::unwrap_used)]

#[path = "vision/lora.rs"]
mod lora;
#[path = "vision/loss.rs"]
mod loss;
#[path = "vision/model.rs"]
mod model;
#[path = "vision/reference.rs"]
mod reference;
#[path = "../../vision/tests/parity/test_image.rs"]
mod test_image;
#[path = "vision/trained.rs"]
mod trained;
