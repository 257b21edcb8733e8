//! A safetensors file with arbitrary tensors, read one at a time.

use std::ops::Range;
use std::path::Path;

use candle_core::Tensor;

use super::file::WeightFile;
use super::read::{is_float, tensor, values};
use crate::error::{Result, TensorContext};

/// An open, memory-mapped safetensors file; tensors are read on demand.
pub struct TensorFile(WeightFile);

impl TensorFile {
    /// Opens `path` and validates its header.
    ///
    /// # Errors
    /// [`crate::Error::CorruptWeights`] for a truncated or corrupt file, or [`crate::Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        WeightFile::open(path).map(Self)
    }

    /// The tensors' names in file order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name)
    }

    /// The shape of the tensor `name`; `None` if there is no such float tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let stored = self.0.get(name).filter(|stored| is_float(stored.dtype))?;
        Some(&stored.shape)
    }

    /// The tensor `name` as f32 on the CPU; `None` if there is no such float tensor.
    ///
    /// # Errors
    /// Out of memory.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let Some(stored) = self.0.get(name).filter(|stored| is_float(stored.dtype)) else {
            return Ok(None);
        };
        Ok(Some(tensor(&self.0, stored).context(format!("read `{name}`"))?))
    }

    /// A range of elements of the tensor `name` in row-major order; `None` if there is no such range.
    #[must_use]
    pub fn elements(&self, name: &str, range: Range<usize>) -> Option<Vec<f32>> {
        let stored = self.0.get(name).filter(|stored| is_float(stored.dtype))?;
        let bytes = self.0.bytes(stored);
        let width = bytes.len() / stored.shape.iter().product::<usize>().max(1);
        let bytes = bytes.get(range.start.checked_mul(width)?..range.end.checked_mul(width)?)?;
        Some(values(stored.dtype, bytes))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::config::WeightDtype;
    use crate::weights::save_file;

    #[test]
    fn tensors_are_read_back_by_name_in_the_order_they_were_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("moments.safetensors");
        // More elements than one write, and a tensor that is not contiguous.
        let values: Vec<f32> = (0..70_000).map(|i| i as f32).collect();
        let long = Tensor::from_vec(values.clone(), 70_000, &Device::Cpu).unwrap();
        let transposed =
            Tensor::new(&[[1f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap().t().unwrap();
        save_file(&path, [("z", &long), ("a", &transposed)], WeightDtype::F32).unwrap();

        let file = TensorFile::open(&path).unwrap();
        assert_eq!(file.names().collect::<Vec<_>>(), ["z", "a"]);
        assert_eq!(file.shape("a"), Some([2, 2].as_slice()));
        let read = |name: &str| file.tensor(name).unwrap().unwrap();
        assert_eq!(read("z").to_vec1::<f32>().unwrap(), values);
        assert_eq!(read("a").to_vec2::<f32>().unwrap(), [[1.0, 3.0], [2.0, 4.0]]);
        assert!(file.tensor("other").unwrap().is_none());
        assert_eq!(file.elements("a", 1..3), Some(vec![3.0, 2.0]));
        assert_eq!((file.elements("a", 1..5), file.elements("other", 0..1)), (None, None));
    }
}
