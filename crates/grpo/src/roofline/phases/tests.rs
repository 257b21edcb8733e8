use embodied_r_policy::Precision;
use embodied_r_policy::trainable::Counts;

use super::*;
use crate::memory_plan::{Layout, Taping};
use crate::optimizer::Optim;
use crate::roofline::{Card, Fabric};
use crate::settings::Recompute;

/// A step of 3B on A100 cards: 8 groups of 4 completions for each of `ranks` ranks.
fn load(ranks: usize) -> Load {
    let numbers = 3_085_938_688;
    let counts = Counts { trainable: numbers, total: numbers };
    Load {
        reference: numbers,
        prompts: 8,
        prompt: 3072,
        completions: 4,
        completion: 256,
        budget: 8192,
        rollout: Some(Precision::Bf16),
        taping: Taping::Never,
        layout: Layout::gpu(ranks),
        ..Load::new(counts, Optim::Adamw)
    }
}

fn estimate(load: &Load, recompute: Recompute, name: &str) -> Estimate {
    let config = ModelConfig::published("Qwen2.5-3B").unwrap();
    let card = Card::find(Some(name), None).unwrap();
    let plan = MemoryPlan::new(&config, load, recompute, None);
    let ranks = load.layout.ranks;
    let network = Network::new(ranks, card.link, 1, Fabric::ethernet(100.0));
    Estimate::new(&config, load, &plan, &Machine::gpu(&card), &network)
}

fn phase(estimate: &Estimate, kind: PhaseKind) -> Phase {
    *estimate.phases.iter().find(|phase| phase.kind == kind).unwrap()
}

#[test]
fn a_forward_pass_is_worth_two_operations_for_each_number_and_token() {
    let step = estimate(&load(1), Recompute::All, "A100");
    let reference = phase(&step, PhaseKind::Reference);
    // 8 · (3,072 + 4 · 255) tokens by the 2.77 billion numbers of the layers, and attention with 3 % on top.
    let linear = 2.0 * 32_736.0 * 2.77e9;
    assert!(reference.flops > linear && reference.flops < 1.25 * linear, "{reference:?}");
    let update = phase(&step, PhaseKind::Update);
    assert!((update.flops / reference.flops - 4.0).abs() < 1e-9, "forward, backward, again");
    let kept = estimate(&load(1), Recompute::None, "A100");
    assert!((phase(&kept, PhaseKind::Update).flops / reference.flops - 3.0).abs() < 1e-9);
    assert_eq!((reference.bound, update.bound), (Bound::Compute, Bound::Compute));
}

#[test]
fn a_decoding_step_reads_the_weights_and_the_keys_and_values_of_every_sequence() {
    let decode = phase(&estimate(&load(1), Recompute::All, "A100"), PhaseKind::Decode);
    // 3.0859 billion numbers less norms and biases, in bf16; 32 sequences of 3,072 + 128 tokens at 36,864 bytes.
    let step = 6.1716e9 + 32.0 * 3_200.0 * 36_864.0;
    assert!((decode.bytes / (255.0 * step) - 1.0).abs() < 1e-3, "{}", decode.bytes / 255.0);
    assert_eq!(decode.bound, Bound::Memory);
    let floor = decode.bytes / 1_555e9;
    assert!(decode.seconds > floor / 0.7 && decode.seconds < floor / 0.5);
}

#[test]
fn one_rank_sends_nothing_and_eight_send_seven_eighths() {
    let one = estimate(&load(1), Recompute::All, "A100");
    assert_eq!(one.seconds_of(PhaseKind::Gather) + one.seconds_of(PhaseKind::Reduce), 0.0);
    let eight = estimate(&load(8), Recompute::All, "A100");
    let numbers = 3_085_938_688.0;
    assert_eq!(phase(&eight, PhaseKind::Gather).bytes, 2.0 * numbers * 7.0 / 8.0);
    let reduce = phase(&eight, PhaseKind::Reduce);
    assert_eq!(reduce.bytes, 4.0 * numbers * 7.0 / 8.0);
    assert_eq!(reduce.seconds, 0.0, "the last micro-batch's backward hides all of it");
}

#[test]
fn the_optimiser_moves_a_rank_s_share() {
    let of = |ranks| phase(&estimate(&load(ranks), Recompute::All, "A100"), PhaseKind::Optimizer);
    // Masters, both moments and gradients read and written, and the weight written: 34 bytes a number.
    assert_eq!(of(1).bytes, 34.0 * 3_085_938_688.0);
    assert_eq!(of(1).bytes, 8.0 * of(8).bytes);
}

#[test]
fn an_adapter_spares_the_gradients_of_the_weights_it_leaves() {
    let lora = Load { trainable: 30_000_000, reference: 0, ..load(1) };
    let (full, lora) =
        (estimate(&load(1), Recompute::All, "A100"), estimate(&lora, Recompute::All, "A100"));
    let ratio = phase(&lora, PhaseKind::Update).flops / phase(&full, PhaseKind::Update).flops;
    assert!((ratio - 3.01 / 4.0).abs() < 1e-3, "{ratio}");
    assert_eq!(lora.seconds_of(PhaseKind::Reference), 0.0);
}

#[test]
fn a_faster_card_takes_less_time() {
    let of = |name| estimate(&load(1), Recompute::All, name).seconds();
    assert!(of("H200") < of("H100") && of("H100") < of("A100") && of("A100") < of("4090"));
}

#[test]
fn one_sequence_of_a_small_model_waits_for_its_parts_to_start() {
    let parts = [(1e-5, 2e-5), (1e-6, 2e-6)];
    assert_eq!(decoding_bound(parts, 1e-3), Bound::Launches);
    assert_eq!(decoding_bound(parts, 1e-6), Bound::Memory);
    assert_eq!(decoding_bound([(3e-5, 2e-5), (1e-6, 2e-6)], 1e-6), Bound::Compute);
}
