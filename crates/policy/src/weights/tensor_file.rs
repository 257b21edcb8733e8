//! A safetensors file of any tensors, read one at a time.

use std::ops::Range;
use std::path::Path;

use candle_core::Tensor;

use super::file::WeightFile;
use super::read::{is_float, numbers, tensor};
use crate::error::{During, Result};

/// An open safetensors file: it is mapped, so that a tensor takes memory only once it is asked for.
pub struct TensorFile(WeightFile);

impl TensorFile {
    /// Opens `path` and checks its header.
    ///
    /// # Errors
    /// [`crate::Error::CorruptWeights`] for a truncated or broken file, or [`crate::Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        WeightFile::open(path).map(Self)
    }

    /// The names of its tensors, in the order of their bytes.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The sizes of the tensor `name`; none if there is no such tensor of floats.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let stored = self.0.get(name).filter(|stored| is_float(stored.dtype))?;
        Some(&stored.shape)
    }

    /// The tensor `name` as f32 on the CPU; none if there is no such tensor of floats.
    ///
    /// # Errors
    /// There is no room for it.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(stored) = self.0.get(name).filter(|stored| is_float(stored.dtype)) else {
            return Ok(None);
        };
        Ok(Some(tensor(&self.0, stored).during(format!("take `{name}`"))?))
    }

    /// Some numbers of the tensor `name`, in the order of its rows; none if it has no such numbers.
    #[must_use]
    pub fn numbers(&self, name: &str, range: Range<usize>) -> Option<Vec<f32>> {
        let stored = self.0.get(name).filter(|stored| is_float(stored.dtype))?;
        let bytes = self.0.bytes(stored);
        let width = bytes.len() / stored.shape.iter().product::<usize>().max(1);
        let bytes = bytes.get(range.start.checked_mul(width)?..range.end.checked_mul(width)?)?;
        Some(numbers(stored.dtype, bytes))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::config::WeightDtype;
    use crate::weights::save_file;

    #[test]
    fn tensors_come_back_by_name_in_the_order_in_which_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("moments.safetensors");
        // More numbers than are written at once, and a tensor that is not contiguous.
        let numbers: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
        let long = Tensor::from_vec(numbers.clone(), 70_000, &Device::Cpu).unwrap();
        let turned = Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap().t().unwrap();
        save_file(&path, [("z", &long), ("a", &turned)], WeightDtype::F32).unwrap();

        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(file.shape("a"), Some([2, 2].as_slice()));
        let read = |name: &str| file.tensor(name).unwrap().unwrap();
        assert_eq!(read("z").to_vec1::<f32>().unwrap(), numbers);
        assert_eq!(read("a").to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
        assert!(file.tensor("other").unwrap().is_none());
        assert_eq!(file.numbers("a", 1..3), Some(vec![3.0, 2.0]));
        assert_eq!((file.numbers("a", 1..5), file.numbers("other", 0..1)), (None, None));
    }
}
