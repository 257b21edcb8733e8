//! Group relative policy optimisation and supervised fine-tuning.
