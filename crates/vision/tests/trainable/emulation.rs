//! The CUDA kernels, emulated on the CPU, compared with the CPU's operations.

use embodied_r_kernels::device::{with_cuda_emulation, without_cuda_emulation};
use embodied_r_policy::Precision;
use embodied_r_vision::TowerOptions;

use super::{Gradients, WRITTEN, adapters, options, pass, pixels, relative_error, tower_with};

/// The loss and the gradients of one pass.
fn passed(layout: &str, precision: Precision) -> (f64, Gradients) {
    let options = TowerOptions { precision, ..options() };
    let tower = tower_with(layout, &options);
    let images = pixels(&tower);
    pass(&tower, &images.iter().collect::<Vec<_>>(), 100_000)
}

/// Emulation is a property of a thread, so the pool has only one.
fn on_one_thread<R: Send>(act: impl FnOnce() -> R + Send) -> R {
    rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap().install(act)
}

#[test]
fn gradients_agree_with_the_cpus() {
    for layout in ["nested", "qwen3_vl", WRITTEN] {
        agree(layout);
    }
}

fn agree(layout: &str) {
    let (loss, expected) =
        on_one_thread(|| without_cuda_emulation(|| passed(layout, Precision::F32)));
    for (precision, most) in [(Precision::F32, 2e-5), (Precision::Bf16, 0.2)] {
        let (found_loss, found) =
            on_one_thread(|| with_cuda_emulation(|| passed(layout, precision)));
        assert!(
            (found_loss - loss).abs() < most * loss.abs(),
            "{layout}, {precision:?}: {found_loss} {loss}"
        );
        for (name, expected) in &expected {
            let error = relative_error(&found[name], expected);
            assert!(error > 0.0 && error < most, "{layout}, {precision:?}, {name}: {error:e}");
        }
    }
}

#[test]
fn adapters_agree_with_the_cpus() {
    let passed = || {
        let tower = adapters::adapted("");
        let images = pixels(&tower);
        pass(&tower, &images.iter().collect::<Vec<_>>(), 0)
    };
    let (loss, expected) = on_one_thread(|| without_cuda_emulation(passed));
    let (found_loss, found) = on_one_thread(|| with_cuda_emulation(passed));
    assert!((found_loss - loss).abs() < 2e-5 * loss.abs(), "{found_loss} {loss}");
    for (name, expected) in &expected {
        let error = relative_error(&found[name], expected);
        assert!(error > 0.0 && error < 2e-5, "{name}: {error:e}");
    }
}
