//! Which parameters a run trains, under the names of TRL's `ModelConfig` and of ms-swift.

mod targets;

use embodied_r_policy::Trainable;
use embodied_r_policy::lora::LoraConfig;
use serde::{Deserialize, Serialize};

use super::faults::Faults;
use super::{StringList, VisionSettings};
use targets::Targets;

/// All linear modules of the layers, by `peft`'s name.
pub const ALL_LINEAR: &str = "all-linear";

/// TRL's defaults.
const LORA_R: usize = 16;
const LORA_ALPHA: usize = 32;
const LORA_DROPOUT: f64 = 0.05;

/// The trainable parameters: all, some, or a LoRA adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainableSettings {
    /// Train a LoRA adapter instead of the full model. Default: false.
    pub use_peft: bool,
    /// LoRA rank. Default: 16.
    pub lora_r: usize,
    /// LoRA alpha; the adapter's output is scaled by `lora_alpha / lora_r`. Default: 32.
    pub lora_alpha: usize,
    /// Dropout probability of the adapter's input. Default: 0.05.
    pub lora_dropout: f64,
    /// Target modules of the adapter, such as `q_proj`, or `all-linear`; of the vision encoder those of its unfrozen parts,
    /// such as `attn.qkv` and `merger.mlp.0`. Default: `all-linear`.
    pub lora_target_modules: StringList,
    /// Rank-stabilized LoRA: scale by `lora_alpha / sqrt(lora_r)`. Default: false.
    pub use_rslora: bool,
    /// Regular expressions; parameters whose names match any of them are frozen. Default: none.
    #[serde(skip_serializing_if = "StringList::is_empty")]
    pub freeze_parameters_regex: StringList,
}

impl Default for TrainableSettings {
    fn default() -> Self {
        Self {
            use_peft: false,
            lora_r: LORA_R,
            lora_alpha: LORA_ALPHA,
            lora_dropout: LORA_DROPOUT,
            lora_target_modules: ALL_LINEAR.into(),
            use_rslora: false,
            freeze_parameters_regex: StringList::default(),
        }
    }
}

impl TrainableSettings {
    pub(super) fn add_faults(&self, vision: &VisionSettings, faults: &mut Faults) {
        faults.at_least("lora_r", self.lora_r as u64, 1);
        faults.at_least("lora_alpha", self.lora_alpha as u64, 1);
        faults.fraction("lora_dropout", self.lora_dropout);
        let modules = &self.lora_target_modules.0;
        faults.unless(!modules.is_empty(), "lora_target_modules", || {
            format!("is empty, name a module or use `{ALL_LINEAR}`")
        });
        if self.use_peft || *modules != [ALL_LINEAR] {
            self.targets(vision).add_faults(vision, faults);
        }
        let frozen = !self.freeze_parameters_regex.is_empty();
        faults.unless(!(self.use_peft && frozen), "freeze_parameters_regex", || {
            "conflicts with `use_peft`, which freezes the whole model; keep one of them".into()
        });
        for (key, is_default) in [
            ("lora_r", self.lora_r == LORA_R),
            ("lora_alpha", self.lora_alpha == LORA_ALPHA),
            ("lora_dropout", self.lora_dropout == LORA_DROPOUT),
            ("lora_target_modules", *modules == [ALL_LINEAR]),
            ("use_rslora", !self.use_rslora),
        ] {
            faults.unless(self.use_peft || is_default, key, || {
                "has no effect without `use_peft = true`".into()
            });
        }
    }

    fn targets<'a>(&'a self, vision: &VisionSettings) -> Targets<'a> {
        Targets::new(&self.lora_target_modules.0, vision)
    }

    /// The trainable parameters of `model`, the base of an adapter.
    pub fn trainable(&self, model: &str, vision: &VisionSettings) -> Trainable {
        if self.use_peft {
            // Validation has reported unknown names.
            let Targets { decoder, vision, .. } = self.targets(vision);
            return Trainable::Lora(LoraConfig {
                r: self.lora_r,
                lora_alpha: self.lora_alpha,
                lora_dropout: self.lora_dropout,
                target_modules: decoder,
                encoder_modules: vision.iter().map(|module| module.layer().clone()).collect(),
                use_rslora: self.use_rslora,
                base_model_name_or_path: Some(model.to_owned()),
                base_fingerprint: None,
            });
        }
        match self.freeze_parameters_regex.0.as_slice() {
            [] => Trainable::All,
            patterns => Trainable::AllExcept(patterns.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use embodied_r_policy::lora::{EncoderModule, Module};
    use embodied_r_vision::VisionModule;

    use super::super::{GrpoSettings, SftSettings};
    use super::*;

    fn train(text: &str) -> GrpoSettings {
        toml::from_str(text).unwrap()
    }

    fn faults(text: &str) -> Vec<String> {
        train(text).faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_parameters_are_trained_by_default() {
        assert_eq!(GrpoSettings::default().trainable(), Trainable::All);
        assert_eq!(SftSettings::default().trainable(), Trainable::All);
    }

    #[test]
    fn an_adapter_has_trls_defaults_and_knows_its_base() {
        let Trainable::Lora(lora) = train("model = 'm'\nuse_peft = true").trainable() else {
            panic!("no adapter");
        };
        assert_eq!((lora.r, lora.lora_alpha, lora.lora_dropout), (16, 32, 0.05));
        assert_eq!(lora.target_modules, Module::ALL);
        assert_eq!(lora.base_model_name_or_path.as_deref(), Some("m"));
    }

    #[test]
    fn target_modules_are_a_list_or_a_single_name() {
        for text in ["lora_target_modules = ['v_proj', 'q_proj']", "lora_target_modules = 'o_proj'"]
        {
            let settings = train(&format!("use_peft = true\n{text}"));
            let Trainable::Lora(lora) = settings.trainable() else { panic!("no adapter") };
            let want = match text.contains("o_proj") {
                true => vec![Module::O],
                false => vec![Module::Q, Module::V],
            };
            assert_eq!(lora.target_modules, want);
            // The settings written with a run round-trip.
            let written = toml::to_string(&settings).unwrap();
            assert_eq!(train(&written), settings);
        }
    }

    #[test]
    fn freeze_patterns_are_one_or_several() {
        let one = train("freeze_parameters_regex = 'embed'");
        assert_eq!(one.trainable(), Trainable::AllExcept(vec!["embed".into()]));
        let two = train("freeze_parameters_regex = ['embed', 'norm']");
        assert_eq!(two.trainable(), Trainable::AllExcept(vec!["embed".into(), "norm".into()]));
    }

    #[test]
    fn invalid_and_ineffective_lora_settings_are_reported() {
        let errors = faults("use_peft = true\nlora_r = 0\nlora_dropout = 1.0");
        assert_eq!(errors.len(), 2, "{errors:?}");
        let errors = faults("use_peft = true\nlora_target_modules = ['q_proj', 'lm_head']");
        assert!(
            errors[0].contains("contains `lm_head`, expected `all-linear` or any of `q_proj`"),
            "{errors:?}"
        );
        let errors = faults("use_peft = true\nlora_target_modules = []");
        assert!(errors[0].contains("is empty"), "{errors:?}");
        let errors = faults("use_peft = true\nfreeze_parameters_regex = 'embed'");
        assert!(errors[0].contains("keep one of them"), "{errors:?}");
        let errors = faults("lora_r = 8");
        assert_eq!(errors, ["`lora_r`: has no effect without `use_peft = true`"]);
    }

    fn layer(name: &str) -> EncoderModule {
        EncoderModule::of_layer(&format!("visual.{name}"))
    }

    fn lora(text: &str) -> LoraConfig {
        let settings = train(&format!("use_peft = true\n{text}"));
        assert_eq!(settings.faults(), [], "{text}");
        let Trainable::Lora(lora) = settings.trainable() else { panic!("no adapter") };
        lora
    }

    #[test]
    fn an_adapter_covers_the_parts_of_the_vision_encoder_that_are_not_frozen() {
        let vision = |text: &str| lora(text).encoder_modules;
        let of = |of_merger: &[bool]| -> Vec<EncoderModule> {
            let modules = VisionModule::all().iter();
            let modules = modules.filter(|module| of_merger.contains(&module.is_of_merger()));
            modules.map(|module| module.layer().clone()).collect()
        };
        assert_eq!(vision(""), []);
        assert_eq!(vision("freeze_vision_tower = false"), of(&[false]));
        assert_eq!(vision("freeze_aligner = false"), of(&[true]));
        let both = "freeze_vision_tower = false\nfreeze_aligner = false";
        assert_eq!(vision(both), of(&[false, true]));
    }

    #[test]
    fn target_modules_are_the_ends_of_names_as_in_peft() {
        let tower = "freeze_vision_tower = false\nlora_target_modules = ";
        let found = lora(&format!("{tower}['q_proj', 'gate_proj', 'attn.qkv']"));
        assert_eq!(found.target_modules, [Module::Q, Module::Gate]);
        assert_eq!(
            found.encoder_modules,
            ["blocks.0.attn.qkv", "blocks.0.mlp.gate_proj"].map(layer)
        );
        let found = lora("lora_target_modules = ['self_attn.o_proj', 'mlp.up_proj']");
        assert_eq!(found.target_modules, [Module::O, Module::Up]);
        assert_eq!(found.encoder_modules, []);
        let found =
            lora("freeze_aligner = false\nlora_target_modules = ['v_proj', 'merger.mlp.2']");
        assert_eq!(found.encoder_modules, [layer("merger.mlp.2")]);
    }

    #[test]
    fn target_modules_and_frozen_parts_that_contradict_each_other_are_reported() {
        let all = |text: &str| faults(&format!("use_peft = true\n{text}")).join("\n");
        let frozen = all("lora_target_modules = ['q_proj', 'attn.qkv']");
        assert!(frozen.contains("contains `attn.qkv`, of the vision tower"), "{frozen}");
        assert!(frozen.contains("set `freeze_vision_tower = false`"), "{frozen}");
        let frozen = all("lora_target_modules = ['q_proj', 'mlp.0']");
        assert!(frozen.contains("set `freeze_aligner = false`"), "{frozen}");
        let none = all("freeze_vision_tower = false\nlora_target_modules = ['q_proj']");
        assert!(none.contains("names no layer of the vision tower"), "{none}");
        let none = all("freeze_vision_tower = false\nlora_target_modules = ['qkv']");
        assert!(none.contains("names no module of the decoder"), "{none}");
        let wide = all("freeze_vision_tower = false\nlora_target_modules = ['q_proj', 'proj']");
        assert!(wide.contains("use `attn.proj`"), "{wide}");
        let number = all("freeze_aligner = false\nlora_target_modules = ['q_proj', '0']");
        assert!(number.contains("contains `0`, expected"), "{number}");
    }
}
