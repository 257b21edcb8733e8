//! The tensors of an encoder that a checkpoint stores beside its decoder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::Tensor;

use super::WeightFault;
use super::names::{ENCODER, is_without_use, of_encoder};
use super::read::{LazyTensor, is_float, open};
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::lora::{self, Adapter};

/// The tensors of the encoder in a folder, read on demand.
pub struct EncoderTensors {
    dir: PathBuf,
    /// By canonical name: the name in the file, and the tensor.
    tensors: BTreeMap<String, (String, LazyTensor)>,
    /// Merged into the tensors as they are read.
    adapter: Option<Adapter>,
}

impl EncoderTensors {
    /// Opens the weight files of `dir`, or those of an adapter's base model, into which the adapter is merged. Names within
    /// the encoder are canonical ones without [`ENCODER`].
    ///
    /// # Errors
    /// As [`super::load`], except for missing or misshapen tensors; [`Error::Adapter`] if the adapter does not fit the
    /// encoder.
    pub fn open(dir: &Path) -> Result<Self> {
        let Some(base) = lora::base_model_dir(dir)? else { return Self::of_files(dir) };
        let encoder = Self::of_files(&base)?;
        let adapter = Adapter::open(dir, &ModelConfig::from_dir(&base)?)?;
        let tensors = encoder.tensors.iter();
        adapter.check_encoder(tensors.map(|(name, (_, lazy))| (name.as_str(), lazy.shape())))?;
        Ok(Self { adapter: Some(adapter), ..encoder })
    }

    fn of_files(dir: &Path) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for file in open(dir)? {
            for (name, stored) in file.iter() {
                if let Some(canonical) = of_encoder(name) {
                    let lazy = LazyTensor { file: file.clone(), stored: stored.clone() };
                    tensors.insert(canonical.to_owned(), (name.to_owned(), lazy));
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), tensors, adapter: None })
    }

    /// Checks that the encoder has no tensors but those whose name within it `is_known`.
    ///
    /// # Errors
    /// [`Error::Weights`] with the names of all others.
    pub fn check_names(&self, is_known: impl Fn(&str) -> bool) -> Result<()> {
        let is_known = |name: &String| name.strip_prefix(ENCODER).is_some_and(&is_known);
        let others = self.tensors.keys().filter(|name| !is_known(name) && !is_without_use(name));
        let unexpected = |name: &String| WeightFault::Unexpected { name: name.clone() };
        let faults: Vec<WeightFault> = others.map(unexpected).collect();
        match faults.is_empty() {
            true => Ok(()),
            false => Err(Error::Weights { dir: self.dir.clone(), faults }),
        }
    }

    /// Reads a tensor as f32, by its name within the encoder.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        let name = canonical(name);
        let tensor = self.find(&name, shape)?.read(&name)?;
        if let Some(adapter) = &self.adapter {
            adapter.apply_to_encoder(&name, &tensor)?;
        }
        Ok(tensor)
    }

    /// The name in the file of the tensor with this name within the encoder.
    pub fn stored_name(&self, name: &str) -> Option<&str> {
        self.tensors.get(&canonical(name)).map(|(stored, _)| stored.as_str())
    }

    /// Checks, without reading the tensor, that it can be read.
    ///
    /// # Errors
    /// [`Error::Weights`] if it is missing, has another shape, or an unsupported dtype.
    pub fn check(&self, name: &str, shape: &[usize]) -> Result<()> {
        self.find(&canonical(name), shape).map(|_| ())
    }

    fn find(&self, canonical: &str, shape: &[usize]) -> Result<&LazyTensor> {
        let lazy = self.tensors.get(canonical).map(|(_, lazy)| lazy);
        let name = canonical.to_owned();
        let fault = match lazy {
            None => WeightFault::Missing { name },
            Some(lazy) if !is_float(lazy.stored.dtype) => {
                WeightFault::Dtype { name, found: lazy.stored.dtype.to_string() }
            }
            Some(lazy) if lazy.stored.shape != shape => {
                let (found, want) = (lazy.stored.shape.clone(), shape.to_vec());
                WeightFault::ShapeMismatch { name, found, want }
            }
            Some(lazy) => return Ok(lazy),
        };
        Err(Error::Weights { dir: self.dir.clone(), faults: vec![fault] })
    }
}

/// The canonical name of a tensor, by its name within the encoder.
fn canonical(name: &str) -> String {
    format!("{ENCODER}{name}")
}
