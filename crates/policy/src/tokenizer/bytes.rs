//! A tokenizer of bytes for models with random weights.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, TokenizerBuilder};

use super::TOKENIZER_FILE;
use super::train::{ByteLevelBpe, SPECIAL_TOKENS, write};
use crate::error::{Error, Result};

/// The least vocabulary: the bytes and the special tokens.
const SMALLEST: usize = 256 + SPECIAL_TOKENS.len();

/// Writes a tokenizer with exactly `vocab_size` entries into the folder `dir`: `tokenizer.json`,
/// `tokenizer_config.json` with a ChatML template, and `generation_config.json` with the stop tokens.
///
/// A text becomes its bytes, the ids below 256. `<|endoftext|>`, `<|im_start|>` and `<|im_end|>` have
/// the ids from `first_special` on; the last ends a turn. Every other id is a word of its own, so that
/// whatever a model draws can be shown. The rules are those that `transformers` puts beside a
/// `config.json` of the model type `qwen2`, so that its `AutoTokenizer` gives the same ids.
///
/// # Errors
/// [`Error::VocabSize`] if the bytes and special tokens have no room, [`Error::Tokenizer`],
/// [`Error::Io`].
pub fn write_bytes(dir: &Path, vocab_size: usize, first_special: u32) -> Result<()> {
    let special = first_special as usize..first_special as usize + SPECIAL_TOKENS.len();
    if special.start < 256 || special.end > vocab_size {
        let smallest = SMALLEST.max(special.end);
        return Err(Error::VocabSize { vocab_size, smallest });
    }
    let path = dir.join(TOKENIZER_FILE);
    let tokenizer = tokenizer(vocab_size, special.start).map_err(Error::tokenizer(&path))?;
    write(&tokenizer, first_special, dir)
}

fn tokenizer(vocab_size: usize, first_special: usize) -> tokenizers::Result<ByteLevelBpe> {
    let mut bytes: Vec<String> = ByteLevel::alphabet().into_iter().map(String::from).collect();
    bytes.sort_unstable();
    let special = |id: usize| SPECIAL_TOKENS.get(id.wrapping_sub(first_special));
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
    tokenizer.add_special_tokens(SPECIAL_TOKENS.map(|token| AddedToken::from(token, true)))?;
    Ok(tokenizer)
}

/// The `number`-th word: a space, as byte-level vocabularies write it, and letters.
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
    use crate::tokenizer::{Special, Tokenizer};

    fn made(vocab_size: usize, first_special: u32) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        write_bytes(dir.path(), vocab_size, first_special).unwrap();
        Tokenizer::from_dir(dir.path()).unwrap()
    }

    #[test]
    fn any_text_becomes_its_bytes_and_comes_back() {
        let tokenizer = made(300, 256);
        for text in ["", "a lamp", "\0\r\n\t  x", "ünïcode → 木 🪑", "abc abc"] {
            let ids = tokenizer.encode(text).unwrap();
            assert_eq!(ids.len(), text.len());
            assert_eq!(tokenizer.decode(&ids, Special::Keep).unwrap(), text);
        }
    }

    #[test]
    fn each_id_is_a_text_of_its_own() {
        let tokenizer = made(2_000, 1_500);
        assert_eq!(tokenizer.len(), 2_000);
        let texts: std::collections::BTreeSet<String> =
            (256..2_000).map(|id| tokenizer.decode(&[id], Special::Keep).unwrap()).collect();
        assert_eq!(texts.len(), 2_000 - 256);
        assert_eq!(tokenizer.decode(&[256], Special::Keep).unwrap(), " a");
    }

    #[test]
    fn the_special_tokens_stand_where_asked_and_stop_a_turn() {
        let tokenizer = made(1_000, 900);
        assert_eq!(tokenizer.encode("<|im_start|>a<|im_end|>").unwrap()[0], 901);
        assert_eq!(tokenizer.stop_ids(), [902, 900]);
        let error = write_bytes(Path::new("none"), 300, 298).unwrap_err();
        assert!(matches!(error, Error::VocabSize { vocab_size: 300, smallest: 301 }), "{error}");
    }
}
