//! Stored optimizer state: moments and master weights, in one file or in one per rank.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use embodied_r_policy::weights::TensorFile;

use crate::error::{Error, Result};

/// Stem of the file name.
const STEM: &str = "optimizer";

/// Kinds of optimizer state, under PyTorch's names in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Moment {
    First,
    Second,
    Momentum,
    /// Not a moment: the f32 master copy of a lower-precision parameter.
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

    /// The name of a parameter's unsharded state.
    pub(super) fn full_name(self, parameter: &str) -> String {
        format!("{}.{parameter}", self.name())
    }

    /// The name of its shard from element `start` on.
    pub(super) fn shard_name(self, parameter: &str, start: usize) -> String {
        format!("{}@{start}", self.full_name(parameter))
    }

    /// Parses a name into kind, parameter and first element.
    fn parse(name: &str) -> Option<(Self, &str, usize)> {
        let (name, start) = match name.rsplit_once('@') {
            Some((name, start)) => (name, start.parse().ok()?),
            None => (name, 0),
        };
        // `exp_avg` is a prefix of `exp_avg_sq`; the dot after the name distinguishes them.
        let parse_as = |moment: Self| {
            let parameter = name.strip_prefix(moment.name())?.strip_prefix('.')?;
            Some((moment, parameter, start))
        };
        Self::ALL.into_iter().find_map(parse_as)
    }
}

/// Name of the file that `rank` of `ranks` writes.
pub(crate) fn file_name(rank: usize, ranks: usize) -> String {
    match ranks {
        1 => format!("{STEM}.safetensors"),
        _ => format!("{STEM}-{:05}-of-{ranks:05}.safetensors", rank + 1),
    }
}

/// The optimizer state of a checkpoint.
pub(super) struct StateFiles {
    folder: PathBuf,
    files: Vec<TensorFile>,
    /// Pieces by kind and parameter, in order.
    pieces: BTreeMap<(Moment, String), Vec<Piece>>,
}

#[derive(Debug, Clone)]
struct Piece {
    start: usize,
    elements: usize,
    file: usize,
    name: String,
}

impl StateFiles {
    /// Opens the state in the checkpoint `folder`, which `ranks` ranks wrote.
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
                let elements = shape.iter().product();
                let piece = Piece { start, elements, file, name: name.to_owned() };
                pieces.entry((moment, parameter.to_owned())).or_default().push(piece);
            }
        }
        pieces.values_mut().for_each(|pieces| pieces.sort_by_key(|piece| piece.start));
        Ok(Self { folder: folder.to_owned(), files, pieces })
    }

    /// Whether this state of a parameter is stored.
    pub(super) fn has(&self, moment: Moment, parameter: &str) -> bool {
        self.pieces.contains_key(&(moment, parameter.to_owned()))
    }

    /// Reads a range of a parameter's state.
    ///
    /// # Errors
    /// Elements are missing, or the parameter has another size.
    pub(super) fn read(
        &self,
        moment: Moment,
        (name, parameter): &(String, Tensor),
        elements: Range<usize>,
    ) -> Result<Vec<f32>> {
        let missing = || Error::Moments {
            path: self.folder.clone(),
            what: format!("`{}` is missing or has another shape", moment.full_name(name)),
        };
        let pieces = self.pieces.get(&(moment, name.clone())).ok_or_else(missing)?;
        let all: usize = pieces.iter().map(|piece| piece.elements).sum();
        if all != parameter.elem_count() {
            return Err(missing());
        }
        let mut found = Vec::with_capacity(elements.len());
        for piece in pieces {
            let next = elements.start + found.len();
            let here = piece.start..piece.start + piece.elements;
            if found.len() < elements.len() && here.contains(&next) {
                let wanted = next - here.start..elements.end.min(here.end) - here.start;
                let values = self.files[piece.file].elements(&piece.name, wanted);
                found.extend(values.ok_or_else(missing)?);
            }
        }
        match found.len() == elements.len() {
            true => Ok(found),
            false => Err(missing()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_holds_kind_parameter_and_offset() {
        let of = |moment: Moment| moment.shard_name("model.norm.weight", 12);
        assert_eq!(of(Moment::First), "exp_avg.model.norm.weight@12");
        for moment in Moment::ALL {
            assert_eq!(Moment::parse(&of(moment)), Some((moment, "model.norm.weight", 12)));
            let full_name = moment.full_name("a.b");
            assert_eq!(Moment::parse(&full_name), Some((moment, "a.b", 0)));
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
