//! Malformed weight files: memory use is bounded by the file's size.
#![allow(clippy::unwrap_used)]

use std::alloc::System;
use std::path::{Path, PathBuf};

use cap::Cap;
use embodied_r_policy::{GgufModel, ModelConfig, weights};

/// Counts all bytes that this process allocates.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Allowance for paths, messages and the configuration.
const SMALL: usize = 64 * 1024;

const ROUNDS: u64 = 600;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Total bytes allocated while `act` runs, freed or not.
fn allocated<T>(act: impl FnOnce() -> T) -> (usize, T) {
    let before = ALLOCATOR.total_allocated();
    let result = act();
    (ALLOCATOR.total_allocated() - before, result)
}

/// A deterministic random generator.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// Corrupts single bytes and 64-bit integers of a header.
fn damage(bytes: &mut [u8], header: usize, random: &mut Random) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(header - 8);
        let length = [1, 8][random.below(2)];
        let byte = [0x00, 0x01, 0x7f, 0xff, b'9', b']'][random.below(6)];
        bytes[at..at + length].fill(byte);
    }
}

/// A single test, since the allocator counts for the whole process.
#[test]
fn malformed_files_take_no_more_memory_than_their_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = Random(1);

    let gguf = std::fs::read(fixture("gguf/qwen2vl.gguf")).unwrap();
    let path = dir.path().join("m.gguf");
    let mut rejected = 0;
    for round in 0..ROUNDS {
        let mut bytes = gguf.clone();
        damage(&mut bytes, 1_600, &mut random);
        std::fs::write(&path, &bytes).unwrap();
        let (taken, model) = allocated(|| GgufModel::open(&path));
        assert!(taken <= bytes.len() + SMALL, "round {round}: {taken} of {}", bytes.len());
        rejected += u64::from(model.is_err());
    }
    assert!(rejected > ROUNDS / 2, "{rejected} of {ROUNDS} rejected");

    let source = fixture("models/qwen2-tied");
    let config = ModelConfig::from_dir(&source).unwrap();
    let whole = std::fs::read(source.join("model.safetensors")).unwrap();
    let header = 8 + usize::from(whole[0]) + 256 * usize::from(whole[1]);
    let mut rejected = 0;
    for round in 0..ROUNDS {
        let mut bytes = whole.clone();
        damage(&mut bytes, header, &mut random);
        std::fs::write(dir.path().join("model.safetensors"), &bytes).unwrap();
        let (taken, model) = allocated(|| weights::load(dir.path(), &config));
        // The header's entries, and the intact tensors.
        assert!(taken <= 2 * bytes.len() + SMALL, "round {round}: {taken} of {}", bytes.len());
        rejected += u64::from(model.is_err());
    }
    assert!(rejected > ROUNDS / 2, "{rejected} of {ROUNDS} rejected");
}
