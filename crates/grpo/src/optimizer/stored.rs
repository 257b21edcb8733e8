//! Moments and masters in files: of one rank, or of several, each of which wrote its part.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_policy::weights::TensorFile;

use crate::error::{Error, Result};

/// How the name of the file begins.
const STEM: &str = "optimizer";

/// What is remembered of a parameter, by the names that PyTorch gives moments in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    First,
    Second,
    Momentum,
    /// No moment: the parameter itself in f32, where it computes in fewer bits.
    Master,
}

impl Moment {
    const ALL: [Self; 4] = [Self::First, Self::Second, Self::Momentum, Self::Master];

    fn name(self) -> &'static str {
        match self {
            Self::First => "exp_avg",
            Self::Second => "exp_avg_sq",
            Self::Momentum => "momentum_buffer",
            Self::Master => "master",
        }
    }

    /// The name of a parameter's whole moment.
    pub(super) fn whole(self, parameter: &str) -> String {
        format!("{}.{parameter}", self.name())
    }

    /// The name of a part of it, from the number `start` on.
    pub(super) fn piece(self, parameter: &str, start: usize) -> String {
        format!("{}@{start}", self.whole(parameter))
    }

    /// What a name in a file means: the moment, the parameter and where it begins.
    fn parse(name: &str) -> Option<(Self, &str, usize)> {
        let (name, start) = match name.rsplit_once('@') {
            Some((name, start)) => (name, start.parse().ok()?),
            None => (name, 0),
        };
        // The longer name first, as one begins as the other.
        let of = |moment: Self| {
            let parameter = name.strip_prefix(moment.name())?.strip_prefix('.')?;
            Some((moment, parameter, start))
        };
        Self::ALL.into_iter().find_map(of)
    }
}

/// The name of the file that `rank` of `ranks` writes.
pub(crate) fn file_name(rank: usize, ranks: usize) -> String {
    match ranks {
        1 => format!("{STEM}.safetensors"),
        _ => format!("{STEM}-{:05}-of-{ranks:05}.safetensors", rank + 1),
    }
}

/// All moments of a checkpoint.
pub(super) struct Stored {
    folder: PathBuf,
    files: Vec<TensorFile>,
    /// By moment and parameter: where each piece begins, how long it is, in which file, and its name there.
    pieces: BTreeMap<(Moment, String), Vec<Piece>>,
}

#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    numbers: usize,
    file: usize,
    name: String,
}

impl Stored {
    /// Opens the moments in the checkpoint `folder`, which `ranks` ranks wrote.
    pub(super) fn open(folder: &Path, ranks: usize) -> Result<Self> {
        let open = |rank| Ok(TensorFile::open(&folder.join(file_name(rank, ranks)))?);
        let files: Vec<TensorFile> = (0..ranks).map(open).collect::<Result<_>>()?;
        let mut pieces: BTreeMap<(Moment, String), Vec<Piece>> = BTreeMap::new();
        for (file, tensors) in files.iter().enumerate() {
            for name in tensors.names() {
                let (Some((moment, parameter, start)), Some(shape)) =
                    (Moment::parse(name), tensors.shape(name))
                else {
                    continue;
                };
                let numbers = shape.iter().product();
                let piece = Piece { start, numbers, file, name: name.to_owned() };
                pieces.entry((moment, parameter.to_owned())).or_default().push(piece);
            }
        }
        pieces.values_mut().for_each(|pieces| pieces.sort_by_key(|piece| piece.start));
        Ok(Self { folder: folder.to_owned(), files, pieces })
    }

    /// Whether there is this of a parameter.
    pub(super) fn has(&self, moment: Moment, parameter: &str) -> bool {
        self.pieces.contains_key(&(moment, parameter.to_owned()))
    }

    /// Some numbers of a parameter's moment.
    ///
    /// # Errors
    /// They are not all there, or the parameter has another size.
    pub(super) fn read(
        &self,
        moment: Moment,
        (name, parameter): &(String, Tensor),
        numbers: Range<usize>,
    ) -> Result<Vec<f32>> {
        let missing = || Error::Moments {
            path: self.folder.clone(),
            what: format!("`{}` is missing or has another shape", moment.whole(name)),
        };
        let pieces = self.pieces.get(&(moment, name.clone())).ok_or_else(missing)?;
        let all: usize = pieces.iter().map(|piece| piece.numbers).sum();
        if all != parameter.elem_count() {
            return Err(missing());
        }
        let mut found = Vec::with_capacity(numbers.len());
        for piece in pieces {
            let next = numbers.start + found.len();
            let here = piece.start..piece.start + piece.numbers;
            if found.len() < numbers.len() && here.contains(&next) {
                let wanted = next - here.start..numbers.end.min(here.end) - here.start;
                let values = self.files[piece.file].numbers(&piece.name, wanted);
                found.extend(values.ok_or_else(missing)?);
            }
        }
        match found.len() == numbers.len() {
            true => Ok(found),
            false => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_moment_parameter_and_place() {
        let of = |moment: Moment| moment.piece("model.norm.weight", 12);
        assert_eq!(of(Moment::First), "exp_avg.model.norm.weight@12");
        for moment in Moment::ALL {
            assert_eq!(Moment::parse(&of(moment)), Some((moment, "model.norm.weight", 12)));
            let whole = moment.whole("a.b");
            assert_eq!(Moment::parse(&whole), Some((moment, "a.b", 0)));
        }
        assert_eq!(Moment::parse("exp_avg.a@x"), None);
        assert_eq!(Moment::parse("other.a"), None);
    }

    #[test]
    fn files_are_numbered_from_one() {
        assert_eq!(file_name(0, 1), "optimizer.safetensors");
        assert_eq!(file_name(2, 4), "optimizer-00003-of-00004.safetensors");
    }
}
