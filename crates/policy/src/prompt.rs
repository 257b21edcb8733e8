//! What a completion goes on from: tokens, of which some may stand for pictures.

use std::ops::Range;

use candle_core::Tensor;

use crate::error::{Error, Result};

/// A prompt: the ids of its tokens, and what stands in the place of some of them.
#[derive(Debug, Clone, Default)]
pub struct Prompt {
    ids: Vec<u32>,
    inserts: Vec<Insert>,
    /// Place of each token in time, height and width; none for text, where all three are the token's index.
    places: Vec<Place>,
}

/// A token's place in time, height and width.
pub type Place = [usize; 3];

/// What the first layer takes in the place of consecutive tokens, such as those of an image.
#[derive(Debug, Clone)]
pub struct Insert {
    /// Index of the first of the tokens in the prompt.
    pub at: usize,
    /// What stands there (tokens, hidden).
    pub embeddings: Tensor,
    /// Each token's place, counted from where the insert begins. What follows begins behind the farthest.
    pub places: Vec<Place>,
    /// Names embeddings and places: what bears the same name is taken for the same.
    pub digest: u128,
}

/// What a token is known by: equal keys at equal places behind equal keys have equal keys and values.
pub(crate) type TokenKey = u128;

/// Set in the keys of inserted tokens, so that no id is taken for one.
const INSERTED: TokenKey = 1 << 127;

/// The key of a text's token.
pub(crate) fn text_key(id: u32) -> TokenKey {
    TokenKey::from(id)
}

impl Insert {
    /// Its tokens' indices in the prompt.
    fn tokens(&self) -> Range<usize> {
        self.at..self.at + self.places.len()
    }
}

impl Prompt {
    /// A prompt of `ids`, with `inserts` in the order of their places.
    ///
    /// # Errors
    /// [`Error::Sequence`] if inserts overlap, reach beyond the tokens, or have not an embedding for each.
    pub fn with_inserts(ids: Vec<u32>, inserts: Vec<Insert>) -> Result<Self> {
        let mut end = 0;
        for insert in &inserts {
            let rows = insert.embeddings.dims2().map_or(0, |(rows, _)| rows);
            let tokens = insert.tokens();
            let fault = if rows != tokens.len() || rows == 0 {
                format!("an image has {rows} embeddings for {} tokens", tokens.len())
            } else if tokens.start < end || tokens.end > ids.len() {
                format!(
                    "the image at tokens {tokens:?} overlaps another or lies outside the prompt"
                )
            } else {
                end = tokens.end;
                continue;
            };
            return Err(Error::Sequence { index: 0, fault });
        }
        let places = if inserts.is_empty() { Vec::new() } else { places(ids.len(), &inserts) };
        Ok(Self { ids, inserts, places })
    }

    /// The ids of its tokens.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Whether all of it is text.
    pub fn is_text(&self) -> bool {
        self.inserts.is_empty()
    }

    /// Width of the embeddings that are inserted, if there are some.
    pub(crate) fn inserted_width(&self) -> Option<usize> {
        self.inserts.first().and_then(|insert| insert.embeddings.dims().last().copied())
    }

    /// The place of the token at `index`, which may lie behind the prompt.
    pub fn place(&self, index: usize) -> Place {
        let Some(last) = self.places.len().checked_sub(1) else { return [index; 3] };
        match self.places.get(index) {
            Some(place) => *place,
            // The last token is text, or the farthest place is that of the insert it ends.
            None => [self.end() + index - last - 1; 3],
        }
    }

    /// The place behind all of the prompt.
    fn end(&self) -> usize {
        match self.inserts.last() {
            Some(insert) if insert.tokens().end == self.ids.len() => {
                farthest(&self.places[insert.tokens()])
            }
            _ => self.places.last().map_or(0, |place| place[0] + 1),
        }
    }

    /// What each token is known by.
    pub(crate) fn keys(&self) -> Vec<TokenKey> {
        let mut keys: Vec<TokenKey> = self.ids.iter().map(|id| text_key(*id)).collect();
        for insert in &self.inserts {
            for (row, key) in keys[insert.tokens()].iter_mut().enumerate() {
                *key = insert.digest.wrapping_add(row as TokenKey) | INSERTED;
            }
        }
        keys
    }

    /// What is inserted among the tokens `range`: tokens of the range, counted from its beginning, and the rows of
    /// the embeddings that stand there.
    pub(crate) fn inserted(
        &self,
        range: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Range<usize>, &Tensor)> {
        self.inserts.iter().filter_map(move |insert| {
            let tokens = insert.tokens();
            let (start, end) = (tokens.start.max(range.start), tokens.end.min(range.end));
            let rows = start.checked_sub(tokens.start)?..end.checked_sub(tokens.start)?;
            let there = start < end;
            there.then(|| (start - range.start..end - range.start, rows, &insert.embeddings))
        })
    }
}

impl From<Vec<u32>> for Prompt {
    /// A text.
    fn from(ids: Vec<u32>) -> Self {
        Self { ids, ..Self::default() }
    }
}

/// The place behind the farthest of these.
fn farthest(places: &[Place]) -> usize {
    places.iter().flatten().max().map_or(0, |place| place + 1)
}

/// The places of so many tokens: text goes on by one, all three alike; an insert has its own, from where it begins
/// (M-RoPE, Wang et al., Qwen2-VL, 2024).
fn places(tokens: usize, inserts: &[Insert]) -> Vec<Place> {
    let mut places = Vec::with_capacity(tokens);
    let mut next = 0;
    let text = |places: &mut Vec<Place>, next: &mut usize, until: usize| {
        let count = until - places.len();
        places.extend((*next..*next + count).map(|place| [place; 3]));
        *next += count;
    };
    for insert in inserts {
        text(&mut places, &mut next, insert.at);
        places.extend(insert.places.iter().map(|place| place.map(|axis| next + axis)));
        next += farthest(&insert.places);
    }
    text(&mut places, &mut next, tokens);
    places
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device};

    fn insert(at: usize, places: Vec<Place>, digest: u128) -> Insert {
        let embeddings = Tensor::zeros((places.len(), 3), DType::F32, &Device::Cpu).unwrap();
        Insert { at, embeddings, places, digest }
    }

    /// An image of 2 × 3 tokens.
    fn image(at: usize) -> Insert {
        let places = (0..6).map(|i| [0, i / 3, i % 3]).collect();
        insert(at, places, 1000)
    }

    #[test]
    fn text_behind_an_image_begins_behind_its_longer_side() {
        let prompt = Prompt::with_inserts(vec![5; 10], vec![image(2)]).unwrap();
        let places: Vec<Place> = (0..12).map(|index| prompt.place(index)).collect();
        assert_eq!(places[..2], [[0; 3], [1; 3]]);
        assert_eq!(
            places[2..8],
            [[2, 2, 2], [2, 2, 3], [2, 2, 4], [2, 3, 2], [2, 3, 3], [2, 3, 4]]
        );
        assert_eq!(places[8..], [[5; 3], [6; 3], [7; 3], [8; 3]]);
    }

    #[test]
    fn a_prompt_that_ends_with_an_image_goes_on_behind_it() {
        let prompt = Prompt::with_inserts(vec![5; 8], vec![image(2)]).unwrap();
        assert_eq!([prompt.place(8), prompt.place(9)], [[5; 3], [6; 3]]);
        let text = Prompt::from(vec![1, 2]);
        assert_eq!([text.place(1), text.place(7)], [[1; 3], [7; 3]]);
    }

    #[test]
    fn tokens_of_an_image_are_known_by_the_image() {
        let keys = |digest| {
            let insert = Insert { digest, ..image(1) };
            Prompt::with_inserts(vec![7; 8], vec![insert]).unwrap().keys()
        };
        assert_eq!(keys(1000), keys(1000));
        assert!(keys(1000)[1..7].iter().all(|key| !keys(2000).contains(key)));
        assert_eq!((keys(1000)[0], keys(1000)[7]), (text_key(7), text_key(7)));
    }

    #[test]
    fn a_chunk_holds_its_part_of_an_image() {
        let prompt = Prompt::with_inserts(vec![5; 20], vec![image(2), image(10)]).unwrap();
        let parts = |range| -> Vec<_> {
            prompt.inserted(range).map(|(tokens, rows, _)| (tokens, rows)).collect()
        };
        assert_eq!(parts(0..20), [(2..8, 0..6), (10..16, 0..6)]);
        assert_eq!(parts(4..12), [(0..4, 2..6), (6..8, 0..2)]);
        assert_eq!(parts(8..10), []);
        assert_eq!(parts(30..31), []);
    }

    #[test]
    fn inserts_that_do_not_fit_are_refused() {
        let told = |inserts| match Prompt::with_inserts(vec![5; 10], inserts) {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        assert!(told(vec![image(5)]).contains("lies outside"));
        assert!(told(vec![image(0), image(3)]).contains("overlaps"));
        assert!(told(vec![insert(0, vec![], 1)]).contains("0 embeddings"));
        let short = Insert { places: vec![[0; 3]], ..image(0) };
        assert!(told(vec![short]).contains("6 embeddings for 1 tokens"));
    }
}
