//! Trains a small byte-level BPE tokenizer, for models trained from scratch.

use std::path::Path;

use embodied_r_policy::tokenizer::{SPECIAL_TOKENS, write_chatml_tokenizer};
use embodied_r_policy::{Error, Result};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
    SplitDelimiterBehavior, TokenizerBuilder, TokenizerImpl,
};

/// Pre-tokenization pattern: words and numbers include a preceding space, punctuation marks are separate, and numbers
/// are neither split nor merged with other text.
const PATTERN: &str = r" ?\p{L}+| ?\p{N}+|[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s";

/// The same with signs and decimals as parts of numbers.
const DECIMALS_PATTERN: &str =
    r" ?\p{L}+| ?-?\p{N}+(?:\.\p{N}+)?|[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s";

/// Training options of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TrainOptions {
    /// Maximum vocabulary size, including the three special tokens and the 256 bytes.
    pub(crate) vocab_size: usize,
    /// Minimum number of occurrences of a merge.
    pub(crate) min_frequency: u64,
    /// Whether a number's sign and decimals are parts of it, so that ` -0.25` can be one token.
    pub(crate) decimals: bool,
}

/// Trains a byte-level BPE on `documents` and writes it into the folder `dir`: `tokenizer.json`,
/// `tokenizer_config.json` with a ChatML template, and `generation_config.json` with the stop tokens.
///
/// The special tokens are `<|endoftext|>`, `<|im_start|>` and `<|im_end|>` with the ids 0, 1 and 2; the last ends a
/// turn. Any text can be encoded. Training is deterministic. Returns the vocabulary size; it is smaller than requested if the
/// documents have no more merges.
///
/// In Python, load it with `PreTrainedTokenizerFast`. `AutoTokenizer` of `transformers` 5 works too, except with a
/// `config.json` of the model type `qwen2`, for which it substitutes Qwen2's pre-tokenization.
///
/// # Errors
/// [`Error::VocabSize`] if not even all bytes fit, [`Error::Tokenizer`], [`Error::Io`].
pub(crate) fn train<S: AsRef<str> + Send>(
    documents: impl IntoIterator<Item = S, IntoIter: Send>,
    options: &TrainOptions,
    dir: &Path,
) -> Result<usize> {
    let smallest = ByteLevel::alphabet().len() + 3;
    if options.vocab_size < smallest {
        return Err(Error::VocabSize { vocab_size: options.vocab_size, smallest });
    }
    let failed = |source| Error::Tokenizer { path: dir.join("tokenizer.json"), source };
    let pattern = if options.decimals { DECIMALS_PATTERN } else { PATTERN };
    let mut tokenizer = untrained(pattern).map_err(failed)?;
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(options.vocab_size)
        .min_frequency(options.min_frequency)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)).into())
        .build();
    tokenizer.train(&mut trainer, documents.into_iter()).map_err(failed)?;
    write_chatml_tokenizer(dir, &tokenizer)?;
    Ok(tokenizer.get_vocab_size(true))
}

type ByteLevelBpe =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, ByteLevel>;

fn untrained(pattern: &str) -> tokenizers::Result<ByteLevelBpe> {
    let pieces = Split::new(
        SplitPattern::Regex(pattern.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let bytes = ByteLevel::new(false, false, false);
    TokenizerBuilder::new()
        .with_model(BPE::default())
        .with_normalizer(None)
        .with_pre_tokenizer(Some(Sequence::new(vec![pieces.into(), bytes.into()]).into()))
        .with_post_processor(None)
        .with_decoder(Some(bytes))
        .build()
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::tokenizer::{ChatMessage, GenerationPrompt, SpecialTokens, Tokenizer};

    use super::*;

    /// Captions of rooms, as training text.
    fn captions() -> Vec<String> {
        (0..400)
            .map(|i| {
                let (left, far) = (i * 7 % 180, i % 12);
                format!("Frame {i}: Observe: chair left {left}, {far} m; lamp ahead, 4 m.\n<think>so</think>\n")
            })
            .collect()
    }

    fn trained(dir: &Path) -> Tokenizer {
        let options = TrainOptions { vocab_size: 1_500, min_frequency: 1, decimals: false };
        train(captions(), &options, dir).unwrap();
        Tokenizer::from_dir(dir).unwrap()
    }

    fn pieces(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        ids.into_iter().map(|id| tokenizer.decode(&[id], SpecialTokens::Keep).unwrap()).collect()
    }

    #[test]
    fn words_and_numbers_are_tokens_and_punctuation_is_separate() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = trained(dir.path());
        assert_eq!(
            pieces(&tokenizer, "Frame 7: chair left 133, 11 m; lamp"),
            ["Frame", " 7", ":", " chair", " left", " 133", ",", " 11", " m", ";", " lamp"]
        );
        assert_eq!(pieces(&tokenizer, "</think>\n"), ["<", "/", "think", ">", "\n"]);
    }

    #[test]
    fn signs_and_decimals_are_parts_of_numbers_on_request() {
        let texts = ["cup 0.25 -0.11, at 1.05: up\nA 0.25 -0.11 1.05."; 3];
        let pieces_with = |decimals: bool| {
            let dir = tempfile::tempdir().unwrap();
            let options = TrainOptions { vocab_size: 400, min_frequency: 1, decimals };
            train(texts, &options, dir.path()).unwrap();
            pieces(&Tokenizer::from_dir(dir.path()).unwrap(), "cup 0.25 -0.11, at 1.05.")
        };
        assert_eq!(pieces_with(true), ["cup", " 0.25", " -0.11", ",", " at", " 1.05", "."]);
        let split = pieces_with(false);
        assert_eq!(split[..9], ["cup", " 0", ".", "25", " ", "-", "0", ".", "11"]);
    }

    #[test]
    fn training_twice_gives_the_same_files() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        trained(first.path());
        trained(second.path());
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let read = |dir: &tempfile::TempDir| std::fs::read(dir.path().join(file)).unwrap();
            assert_eq!(read(&first), read(&second), "{file}");
        }
    }

    #[test]
    fn the_vocabulary_is_as_large_as_requested_and_holds_all_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let trained = |vocab_size: usize| {
            let options = TrainOptions { vocab_size, min_frequency: 1, decimals: false };
            train(captions(), &options, dir.path())
        };
        assert_eq!(trained(300).unwrap(), 300);
        assert_eq!(
            trained(258).unwrap_err().to_string(),
            "`vocab_size` must be at least 259, for all bytes and the special tokens, not 258"
        );
    }

    #[test]
    fn a_trained_tokenizer_has_a_chatml_template() {
        let dir = tempfile::tempdir().unwrap();
        let tokenizer = trained(dir.path());
        let conversation = [ChatMessage::system("Think."), ChatMessage::user("Where is the lamp?")];
        let chat = tokenizer.apply_chat_template(&conversation, GenerationPrompt::Append).unwrap();
        assert_eq!(
            chat.text(),
            "<|im_start|>system\nThink.<|im_end|>\n<|im_start|>user\nWhere is the lamp?<|im_end|>\n<|im_start|>assistant\n"
        );
        let ids = tokenizer.encode_chat(&chat).unwrap();
        assert_eq!(ids.iter().filter(|id| **id == 1).count(), 3);
        assert_eq!(tokenizer.stop_ids(), [2, 0]);
        assert_eq!(tokenizer.token_id("<|im_end|>"), Some(2));
    }
}
