use embodied_r_policy::Precision;
use embodied_r_policy::trainable::ParameterCounts;

use super::*;
use crate::estimate::memory_plan::{ActivationCachePolicy, MemoryLayout};
use crate::estimate::roofline::{GpuSpec, InterNodeLink};
use crate::settings::Optim;
use crate::settings::Recompute;

/// A step of 3B on A100 GPUs: 8 groups of 4 completions for each of `ranks` ranks.
fn workload(ranks: usize) -> Workload {
    let parameters = 3_085_938_688;
    let counts = ParameterCounts { trainable: parameters, total: parameters };
    Workload {
        reference: parameters,
        prompts: 8,
        prompt: 3072,
        completions: 4,
        completion: 256,
        budget: 8192,
        rollout: Some(Precision::Bf16),
        activation_cache: ActivationCachePolicy::Never,
        layout: MemoryLayout::gpu(ranks),
        ..Workload::new(counts, Optim::Adamw)
    }
}

fn estimate(workload: &Workload, recompute: Recompute, name: &str) -> StepEstimate {
    let config = ModelConfig::published("Qwen2.5-3B").unwrap();
    let card = GpuSpec::find(Some(name), None).unwrap();
    let plan = MemoryPlan::new(&config, workload, recompute, None);
    let ranks = workload.layout.ranks;
    let network = Network::new(ranks, card.link, 1, InterNodeLink::ethernet(100.0));
    StepEstimate::new(&config, workload, &plan, &Machine::gpu(&card, Precision::Bf16), &network)
}

fn phase(estimate: &StepEstimate, kind: PhaseKind) -> Phase {
    *estimate.phases.iter().find(|phase| phase.kind == kind).unwrap()
}

#[test]
fn a_forward_pass_has_two_flops_per_parameter_and_token() {
    let step = estimate(&workload(1), Recompute::All, "A100");
    let reference = phase(&step, PhaseKind::Reference);
    // 8 · (3,072 + 4 · 255) tokens by the 2.77 billion parameters of the layers; attention adds a few per cent.
    let linear = 2.0 * 32_736.0 * 2.77e9;
    assert!(reference.flops > linear && reference.flops < 1.25 * linear, "{reference:?}");
    let update = phase(&step, PhaseKind::Update);
    assert!(
        (update.flops / reference.flops - 4.0).abs() < 1e-9,
        "forward, backward, recomputation"
    );
    let none_recomputed = estimate(&workload(1), Recompute::None, "A100");
    assert!(
        (phase(&none_recomputed, PhaseKind::Update).flops / reference.flops - 3.0).abs() < 1e-9
    );
    assert_eq!(
        (reference.bottleneck, update.bottleneck),
        (Bottleneck::Compute, Bottleneck::Compute)
    );
}

#[test]
fn a_decoding_step_reads_the_weights_and_the_kv_cache_of_every_sequence() {
    let decode = phase(&estimate(&workload(1), Recompute::All, "A100"), PhaseKind::Decode);
    // 3.0859 billion parameters less norms and biases, in bf16; 32 sequences of 3,072 + 128 tokens at 36,864 bytes.
    let step = 6.1716e9 + 32.0 * 3_200.0 * 36_864.0;
    assert!((decode.bytes / (255.0 * step) - 1.0).abs() < 1e-3, "{}", decode.bytes / 255.0);
    assert_eq!(decode.bottleneck, Bottleneck::Memory);
    let floor = decode.bytes / 1_555e9;
    assert!(decode.seconds > floor / 0.7 && decode.seconds < floor / 0.5);
}

#[test]
fn one_rank_sends_nothing_and_eight_send_seven_eighths() {
    let one = estimate(&workload(1), Recompute::All, "A100");
    assert_eq!(one.seconds_of(PhaseKind::Gather) + one.seconds_of(PhaseKind::Reduce), 0.0);
    let eight = estimate(&workload(8), Recompute::All, "A100");
    let parameters = 3_085_938_688.0;
    assert_eq!(phase(&eight, PhaseKind::Gather).bytes, 4.0 * parameters * 7.0 / 8.0);
    let reduce = phase(&eight, PhaseKind::Reduce);
    assert_eq!(reduce.bytes, 4.0 * parameters * 7.0 / 8.0);
    assert_eq!(reduce.seconds, 0.0, "the last micro-batch's backward hides all of it");
}

#[test]
fn the_optimizer_updates_a_ranks_shard() {
    let of =
        |ranks| phase(&estimate(&workload(ranks), Recompute::All, "A100"), PhaseKind::Optimizer);
    // Master weights, both moments and gradients read and written, and the weight written: 34 bytes per parameter.
    assert_eq!(of(1).bytes, 34.0 * 3_085_938_688.0);
    assert_eq!(of(1).bytes, 8.0 * of(8).bytes);
}

#[test]
fn an_adapter_saves_the_gradients_of_frozen_weights() {
    let lora = Workload { trainable: 30_000_000, reference: 0, ..workload(1) };
    let (full, lora) =
        (estimate(&workload(1), Recompute::All, "A100"), estimate(&lora, Recompute::All, "A100"));
    let ratio = phase(&lora, PhaseKind::Update).flops / phase(&full, PhaseKind::Update).flops;
    assert!((ratio - 3.01 / 4.0).abs() < 1e-3, "{ratio}");
    assert_eq!(lora.seconds_of(PhaseKind::Reference), 0.0);
}

#[test]
fn a_faster_gpu_takes_less_time() {
    let of = |name| estimate(&workload(1), Recompute::All, name).seconds();
    assert!(of("H200") < of("H100") && of("H100") < of("A100") && of("A100") < of("4090"));
}

#[test]
fn one_sequence_of_a_small_model_is_launch_bound() {
    let parts = [(1e-5, 2e-5), (1e-6, 2e-6)];
    assert_eq!(decode_bottleneck(parts, 1e-3), Bottleneck::Launches);
    assert_eq!(decode_bottleneck(parts, 1e-6), Bottleneck::Memory);
    assert_eq!(decode_bottleneck([(3e-5, 2e-5), (1e-6, 2e-6)], 1e-6), Bottleneck::Compute);
}
