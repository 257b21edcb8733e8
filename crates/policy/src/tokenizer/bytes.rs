//! A byte tokenizer for models with random weights.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{
    AddedToken, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, TokenizerBuilder,
    TokenizerImpl,
};

use super::TOKENIZER_FILE;
use super::chatml::{CHAT_TEMPLATE, SPECIAL_TOKENS, VISION_TEMPLATE, VISION_TOKENS, write};
use crate::error::{Error, Result};

/// Which placeholders a tokenizer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placeholders {
    /// None: it is a text model's.
    #[default]
    None,
    /// Those of images and videos, as Qwen2.5-VL.
    Vision,
}

impl Placeholders {
    fn special_tokens(self) -> Vec<&'static str> {
        match self {
            Self::None => SPECIAL_TOKENS.to_vec(),
            Self::Vision => [&SPECIAL_TOKENS[..], &VISION_TOKENS].concat(),
        }
    }
}

/// Writes a tokenizer with exactly `vocab_size` entries into the folder `dir`: `tokenizer.json`,
/// `tokenizer_config.json` with a ChatML template, and `generation_config.json` with the stop tokens.
///
/// A text is encoded as its bytes, the ids below 256. `<|endoftext|>`, `<|im_start|>` and `<|im_end|>` have
/// the ids from `first_special` on; the last ends a turn. Those of `placeholders` follow. Every other id is a distinct word, so that any
/// sampled id can be decoded. The pipeline is the one that `transformers` uses for the model type `qwen2`,
/// so that `AutoTokenizer` gives the same ids.
///
/// # Errors
/// [`Error::VocabSize`] if the bytes and special tokens do not fit, [`Error::Tokenizer`], [`Error::Io`].
pub fn write_byte_tokenizer(
    dir: &Path,
    vocab_size: usize,
    first_special: u32,
    placeholders: Placeholders,
) -> Result<()> {
    let tokens = placeholders.special_tokens();
    let special = first_special as usize..first_special as usize + tokens.len();
    if special.start < 256 || special.end > vocab_size {
        // All bytes and the special tokens.
        let smallest = special.end.max(256 + tokens.len());
        return Err(Error::VocabSize { vocab_size, smallest });
    }
    let path = dir.join(TOKENIZER_FILE);
    let tokenizer = tokenizer(vocab_size, special.start, &tokens);
    let tokenizer = tokenizer.map_err(Error::tokenizer(&path))?;
    let template = match placeholders {
        Placeholders::None => CHAT_TEMPLATE,
        Placeholders::Vision => VISION_TEMPLATE,
    };
    write(&tokenizer, (&tokens, first_special), template, dir)
}

type ByteLevelBpe =
    TokenizerImpl<BPE, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, ByteLevel>;

fn tokenizer(
    vocab_size: usize,
    first_special: usize,
    tokens: &[&str],
) -> tokenizers::Result<ByteLevelBpe> {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort_unstable();
    let special = |id: usize| tokens.get(id.wrapping_sub(first_special));
    let entry = |id: usize| match (bytes.get(id), special(id)) {
        (Some(byte), _) => byte.clone(),
        (None, Some(token)) => (*token).to_owned(),
        (None, None) => word(id - bytes.len()),
    };
    let vocabulary: Vocab = (0..vocab_size).map(|id| (entry(id), id as u32)).collect();
    let model = BPE::builder().vocab_and_merges(vocabulary, Vec::new()).build()?;
    let level = ByteLevel::new(false, false, false);
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(Some(NFC.into()))
        .with_pre_tokenizer(Some(level.into()))
        .with_post_processor(None)
        .with_decoder(Some(level))
        .build()?;
    let added: Vec<AddedToken> =
        tokens.iter().map(|token| AddedToken::from(*token, true)).collect();
    tokenizer.add_special_tokens(added)?;
    Ok(tokenizer)
}

/// The `number`-th word: the byte-level space character and letters.
fn word(mut number: usize) -> String {
    let mut letters = Vec::new();
    loop {
        letters.push(char::from(b'a' + (number % 26) as u8));
        match number / 26 {
            0 => break,
            rest => number = rest - 1,
        }
    }
    std::iter::once('\u{120}').chain(letters.into_iter().rev()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::{SpecialTokens, Tokenizer};

    fn made(vocab_size: usize, first_special: u32) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        write_byte_tokenizer(dir.path(), vocab_size, first_special, Placeholders::None).unwrap();
        Tokenizer::from_dir(dir.path()).unwrap()
    }

    #[test]
    fn any_text_is_encoded_as_bytes_and_decoded_back() {
        let tokenizer = made(300, 256);
        for text in ["", "a lamp", "\0\r\n\t  x", "ünïcode → 木 🪑", "abc abc"] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids.len(), text.len());
            assert_eq!(tokenizer.decode(&ids, SpecialTokens::Keep).unwrap(), text);
        }
    }

    #[test]
    fn each_id_decodes_to_a_distinct_text() {
        let tokenizer = made(2_000, 1_500);
        assert_eq!(tokenizer.len(), 2_000);
        let texts: std::collections::BTreeSet<String> =
            (256..2_000).map(|id| tokenizer.decode(&[id], SpecialTokens::Keep).unwrap()).collect();
        assert_eq!(texts.len(), 2_000 - 256);
        assert_eq!(tokenizer.decode(&[256], SpecialTokens::Keep).unwrap(), " a");
    }

    #[test]
    fn the_special_tokens_have_the_requested_ids_and_end_a_turn() {
        let tokenizer = made(1_000, 900);
        assert_eq!(tokenizer.encode("<|im_start|>a<|im_end|>").unwrap()[0], 901);
        assert_eq!(tokenizer.stop_ids(), [902, 900]);
        let error =
            write_byte_tokenizer(Path::new("none"), 300, 298, Placeholders::None).unwrap_err();
        assert!(matches!(error, Error::VocabSize { vocab_size: 300, smallest: 301 }), "{error}");
    }
}
