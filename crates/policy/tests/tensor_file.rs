//! Tensor files are written without a copy of the tensors and read one tensor at a time.
#![allow(clippy::unwrap_used)]

use std::alloc::System;

use candle_core::{Device, Tensor};
use cap::Cap;
use embodied_r_policy::WeightDtype;
use embodied_r_policy::weights::{TensorFile, save_file};

/// Counts all bytes that this process allocates.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Bytes per tensor.
const TENSOR: usize = 16 << 20;

/// Allowance for buffers, names and messages.
const SMALL: usize = 2 << 20;

/// Total bytes allocated while `act` runs, freed or not.
fn allocated<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATOR.total_allocated();
    let result = act();
    (ALLOCATOR.total_allocated() - before, result)
}

/// A single test, since the allocator counts for the whole process.
#[test]
fn a_file_is_written_without_a_copy_and_read_one_tensor_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("moments.safetensors");
    let tensor = |value: f32| Tensor::full(value, TENSOR / 4, &Device::Cpu).unwrap();
    let tensors = [("a", tensor(1.0)), ("b", tensor(2.0))];
    for dtype in [WeightDtype::F32, WeightDtype::Bf16] {
        let named = tensors.iter().map(|(name, tensor)| (*name, tensor));
        let (taken, saved) = allocated(|| save_file(&path, named, dtype));
        saved.unwrap();
        assert!(taken < SMALL, "{taken} bytes to write {dtype:?}");

        let (taken, file) = allocated(|| TensorFile::open(&path));
        let file = file.unwrap();
        assert!(taken < SMALL, "{taken} bytes to open {dtype:?}");
        let (taken, read) = allocated(|| file.tensor("b"));
        assert!(taken < TENSOR + SMALL, "{taken} bytes to read {dtype:?}");
        assert_eq!(read.unwrap().unwrap().get(7).unwrap().to_scalar::<f32>().unwrap(), 2.0);
    }
}
