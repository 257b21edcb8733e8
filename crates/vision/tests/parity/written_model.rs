//! A Qwen3-VL with heads of 72 in its vision tower and an LM head of its own, whose weights follow from a formula
//! (`scripts/parity/make_head_size_fixtures.py`): as a file they would be large.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use candle_core::{Device, Tensor};
use embodied_r_policy::ModelConfig;
use embodied_r_policy::weights::tensor_shapes;
use embodied_r_vision::VisionProcessor;

/// The fixture with its configuration and reference results.
pub(crate) const WRITTEN: &str = "qwen3_vl_72";

/// The fixture whose tokenizer and image processor it has.
const SIBLING: &str = "qwen3_vl";

/// The folder of the model, which is written once per process; `fixtures` has the fixtures.
pub(crate) fn folder(fixtures: &Path) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| written(fixtures)).clone()
}

fn written(fixtures: &Path) -> PathBuf {
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME")).join(WRITTEN);
    fs::create_dir_all(&folder).unwrap();
    // Complete at any time: another process may read it.
    let write = |name: &str, save: &dyn Fn(&Path)| {
        let unfinished = folder.join(format!("{name}.{}", std::process::id()));
        save(&unfinished);
        fs::rename(unfinished, folder.join(name)).unwrap();
    };
    for fixture in [SIBLING, WRITTEN] {
        for entry in fs::read_dir(fixtures.join(fixture)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let name = path.file_name().unwrap().to_str().unwrap();
                write(name, &|to| assert_ne!(fs::copy(&path, to).unwrap(), 0));
            }
        }
    }
    let tensors = weights(&folder);
    write("model.safetensors", &|to| candle_core::safetensors::save(&tensors, to).unwrap());
    folder
}

/// The tensors of the model of the configuration in `folder`, by their names in a checkpoint.
fn weights(folder: &Path) -> HashMap<String, Tensor> {
    let decoder = tensor_shapes(&ModelConfig::from_dir(folder).unwrap());
    let decoder = decoder.into_iter().map(|(name, shape)| match name.strip_prefix("model.") {
        Some(rest) => (format!("model.language_model.{rest}"), shape),
        None => (name, shape),
    });
    let tower = VisionProcessor::of_model(folder).unwrap().config().tensor_shapes();
    let tower = tower.into_iter().map(|(name, shape)| (format!("model.visual.{name}"), shape));
    let shapes: BTreeMap<String, Vec<usize>> = decoder.chain(tower).collect();
    let tensor = |(seed, (name, shape)): (u64, (String, Vec<usize>))| {
        let values = values(&name, &shape, seed);
        (name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap())
    };
    (0..).zip(shapes).map(tensor).collect()
}

/// The elements of the tensor that is `seed`-th by name. Every operation is exact or rounded once.
fn values(name: &str, shape: &[usize], mut seed: u64) -> Vec<f32> {
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (seed >> 40) as f32 / (1 << 23) as f32 - 1.0
    });
    let noise = noise.take(shape.iter().product());
    if name.contains("norm") && name.ends_with("weight") {
        noise.map(|x| 1.0 + 0.25 * x).collect()
    } else if name.ends_with("bias") {
        noise.map(|x| 0.25 * x).collect()
    } else if name.contains("embed") && !name.contains("patch") {
        noise.map(|x| 0.5 * x).collect()
    } else {
        let inputs: usize = shape[1..].iter().product();
        let scale = (2.0 / (inputs as f64).sqrt()) as f32;
        noise.map(|x| scale * x).collect()
    }
}
