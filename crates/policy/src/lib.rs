//! The Qwen2 decoder: weights, tokenizer, chat template, generation and the differentiable path.
