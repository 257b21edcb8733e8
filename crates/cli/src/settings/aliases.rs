//! TRL's names of settings, so that a `GRPOConfig`, `SFTConfig` or `ModelConfig` can be carried over.
//!
//! Most settings have TRL's name in the first place. This file holds the others.

/// TRL's names and ours, for settings with the same meaning and the same values.
const SAME: [(&str, &str); 12] = [
    ("model_name_or_path", "model"),
    ("output_dir", "output"),
    ("vllm_importance_sampling_correction", "importance_sampling_correction"),
    ("vllm_importance_sampling_mode", "importance_sampling_mode"),
    ("vllm_importance_sampling_clip_min", "importance_sampling_clip_min"),
    ("vllm_importance_sampling_clip_max", "importance_sampling_clip_max"),
    // The name before there was a lower bound.
    ("vllm_importance_sampling_cap", "importance_sampling_clip_max"),
    // The name before TRL 0.16.
    ("max_seq_length", "max_length"),
    // ms-swift's names.
    ("lora_rank", "lora_r"),
    ("target_modules", "lora_target_modules"),
    ("freeze_vit", "freeze_vision_tower"),
    ("vit_lr", "vision_learning_rate"),
];

/// Settings of TRL that have no counterpart of the same meaning: TRL's name, our setting without which the advice does
/// not apply, and the advice.
const OTHER: [(&str, &str, &str); 16] = [
    ("per_device_train_batch_size", "generation_batch_size", GRPO_BATCH),
    ("per_device_train_batch_size", "train_batch_size", SFT_BATCH),
    ("gradient_accumulation_steps", "generation_batch_size", GRPO_BATCH),
    ("gradient_accumulation_steps", "train_batch_size", SFT_BATCH),
    ("steps_per_generation", "generation_batch_size", GRPO_BATCH),
    ("gradient_checkpointing", "recompute", "use `recompute` (activation recomputation)"),
    ("bf16", "precision", "use `precision`"),
    ("dtype", "precision", "use `precision`"),
    ("torch_dtype", "precision", "use `precision`"),
    ("dataset_name", "data", "use `data`, a local file"),
    ("reward_funcs", "reward_weights", "use `reward_weights` or `--reward-funcs`"),
    ("resume_from_checkpoint", "output", "use `--resume`"),
    (
        "use_vllm",
        "num_generations",
        "completions are always generated in process, by a paged engine",
    ),
    ("use_liger_kernel", "max_tokens_per_batch", "log-probabilities are always computed in chunks"),
    ("logging_steps", "output", "every step is logged"),
    ("num_completions_to_print", "log_completions", "use `log_completions` and `embodied-r show`"),
];
const GRPO_BATCH: &str = "use `generation_batch_size` (completions per step) and `max_tokens_per_batch` (per micro-batch)";
const SFT_BATCH: &str =
    "use `train_batch_size` (responses per step) and `max_tokens_per_batch` (per micro-batch)";

/// Our name of the setting that is called `key`; `key` itself if it is one of `known`, or unknown.
pub(super) fn canonical<'a>(key: &'a str, known: &[&str]) -> &'a str {
    let ours = SAME.iter().find(|(theirs, ours)| *theirs == key && known.contains(ours));
    match ours {
        Some((_, ours)) if !known.contains(&key) => ours,
        _ => key,
    }
}

/// What to use instead of TRL's setting `key`, where the settings are `known`.
pub(super) fn replacement(key: &str, known: &[&str]) -> Option<&'static str> {
    let advice = OTHER.iter().find(|(theirs, ours, _)| *theirs == key && known.contains(ours));
    advice.map(|(_, _, advice)| *advice)
}

/// TRL's and ms-swift's names that lead to one of `known`, or to advice about it.
pub(super) fn of(known: &[&str]) -> impl Iterator<Item = &'static str> {
    let of_others = OTHER.iter().map(|(theirs, ours, _)| (theirs, ours));
    let names = SAME.iter().map(|(theirs, ours)| (theirs, ours)).chain(of_others);
    let names =
        names.filter(move |(theirs, ours)| known.contains(*ours) && !known.contains(*theirs));
    let mut names: Vec<&'static str> = names.map(|(theirs, _)| *theirs).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

#[cfg(test)]
mod tests {
    use embodied_r_grpo::settings::{GrpoSettings, LossSettings, SftSettings, names};

    use super::*;

    #[test]
    fn every_alias_leads_to_a_setting_and_is_none_itself() {
        let all = [names::<GrpoSettings>(), names::<SftSettings>(), names::<LossSettings>()];
        for (theirs, ours) in SAME {
            assert!(all.iter().any(|known| known.contains(&ours)), "{ours}");
            assert!(!all.iter().any(|known| known.contains(&theirs)), "{theirs}");
        }
        for (theirs, ours, _) in OTHER {
            assert!(all.iter().any(|known| known.contains(&ours)), "{ours}");
            assert!(!all.iter().any(|known| known.contains(&theirs)), "{theirs}");
        }
    }

    #[test]
    fn a_replacement_is_a_setting_of_the_same_command() {
        let of = |known| replacement("per_device_train_batch_size", known);
        assert_eq!(of(names::<GrpoSettings>()), Some(GRPO_BATCH));
        assert_eq!(of(names::<SftSettings>()), Some(SFT_BATCH));
        assert_eq!(of(names::<LossSettings>()), None);
    }

    #[test]
    fn a_name_is_translated_only_where_the_setting_exists() {
        assert_eq!(canonical("max_seq_length", names::<SftSettings>()), "max_length");
        assert_eq!(canonical("max_seq_length", names::<GrpoSettings>()), "max_seq_length");
        assert_eq!(canonical("beta", names::<GrpoSettings>()), "beta");
    }
}
