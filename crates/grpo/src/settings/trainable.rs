//! What of the model a run trains, under the names of TRL's `ModelConfig` and of ms-swift.

use std::fmt;

use embodied_r_policy::Trainable;
use embodied_r_policy::lora::{LoraConfig, Module};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Faults;

/// All linear modules of the layers, as `peft` calls them.
pub const ALL_LINEAR: &str = "all-linear";

/// One text or a list of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Texts(pub Vec<String>);

impl Texts {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Texts {
    fn from(text: &str) -> Self {
        Self(vec![text.to_owned()])
    }
}

impl Serialize for Texts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [text] => serializer.serialize_str(text),
            texts => texts.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or a list of texts")
            }

            fn visit_str<E>(self, text: &str) -> Result<Texts, E> {
                Ok(Texts::from(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Texts, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Texts(texts))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

/// The settings of what is trained, as a run's settings hold them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) model: &'a str,
    pub(super) use_peft: bool,
    pub(super) lora_r: usize,
    pub(super) lora_alpha: usize,
    pub(super) lora_dropout: f64,
    pub(super) lora_target_modules: &'a Texts,
    pub(super) use_rslora: bool,
    pub(super) freeze_parameters_regex: &'a Texts,
}

/// TRL's defaults.
pub(super) const LORA_R: usize = 16;
pub(super) const LORA_ALPHA: usize = 32;
pub(super) const LORA_DROPOUT: f64 = 0.05;

impl Asked<'_> {
    pub(super) fn faults(&self, faults: &mut Faults) {
        faults.at_least("lora_r", self.lora_r as u64, 1);
        faults.at_least("lora_alpha", self.lora_alpha as u64, 1);
        faults.share("lora_dropout", self.lora_dropout);
        if let Err(unknown) = self.modules() {
            let names = Module::ALL.map(Module::short_name).join("`, `");
            faults.unless(false, "lora_target_modules", || {
                format!("has `{unknown}`, want `{ALL_LINEAR}` or some of `{names}`")
            });
        }
        let modules = &self.lora_target_modules.0;
        faults.unless(!modules.is_empty(), "lora_target_modules", || {
            format!("is empty, name a module or take `{ALL_LINEAR}`")
        });
        let frozen = !self.freeze_parameters_regex.is_empty();
        faults.unless(!(self.use_peft && frozen), "freeze_parameters_regex", || {
            "stands beside `use_peft`, with which the whole model is frozen; keep one of them"
                .into()
        });
        for (key, is_default) in [
            ("lora_r", self.lora_r == LORA_R),
            ("lora_alpha", self.lora_alpha == LORA_ALPHA),
            ("lora_dropout", self.lora_dropout == LORA_DROPOUT),
            ("lora_target_modules", *modules == [ALL_LINEAR]),
            ("use_rslora", !self.use_rslora),
        ] {
            faults.unless(self.use_peft || is_default, key, || {
                "changes nothing without `use_peft = true`".into()
            });
        }
    }

    /// The modules to adapt, or the name of one that there is not.
    fn modules(&self) -> Result<Vec<Module>, &str> {
        let mut modules = Vec::new();
        for name in &self.lora_target_modules.0 {
            match Module::named(name) {
                Some(module) => modules.push(module),
                None if name == ALL_LINEAR => modules.extend(Module::ALL),
                None => return Err(name),
            }
        }
        modules.sort_unstable();
        modules.dedup();
        Ok(modules)
    }

    pub(super) fn trainable(&self) -> Trainable {
        if self.use_peft {
            return Trainable::Lora(LoraConfig {
                r: self.lora_r,
                lora_alpha: self.lora_alpha,
                lora_dropout: self.lora_dropout,
                // A name that there is not has been told as a fault.
                target_modules: self.modules().unwrap_or_default(),
                use_rslora: self.use_rslora,
                base_model_name_or_path: Some(self.model.to_owned()),
            });
        }
        match self.freeze_parameters_regex.0.as_slice() {
            [] => Trainable::All,
            patterns => Trainable::Except(patterns.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sft, Train};
    use super::*;

    fn train(text: &str) -> Train {
        toml::from_str(text).unwrap()
    }

    fn faults(text: &str) -> Vec<String> {
        train(text).faults().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_is_trained_unless_something_is_said() {
        assert_eq!(Train::default().trainable(), Trainable::All);
        assert_eq!(Sft::default().trainable(), Trainable::All);
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
    fn modules_are_named_one_by_one_or_alone() {
        for text in ["lora_target_modules = ['v_proj', 'q_proj']", "lora_target_modules = 'o_proj'"]
        {
            let settings = train(&format!("use_peft = true\n{text}"));
            let Trainable::Lora(lora) = settings.trainable() else { panic!("no adapter") };
            let want = match text.contains("o_proj") {
                true => vec![Module::O],
                false => vec![Module::Q, Module::V],
            };
            assert_eq!(lora.target_modules, want);
            // What is written beside a run reads back.
            let written = toml::to_string(&settings).unwrap();
            assert_eq!(train(&written), settings);
        }
    }

    #[test]
    fn patterns_are_one_or_several() {
        let one = train("freeze_parameters_regex = 'embed'");
        assert_eq!(one.trainable(), Trainable::Except(vec!["embed".into()]));
        let two = train("freeze_parameters_regex = ['embed', 'norm']");
        assert_eq!(two.trainable(), Trainable::Except(vec!["embed".into(), "norm".into()]));
    }

    #[test]
    fn what_cannot_be_or_changes_nothing_is_told() {
        let told = faults("use_peft = true\nlora_r = 0\nlora_dropout = 1.0");
        assert_eq!(told.len(), 2, "{told:?}");
        let told = faults("use_peft = true\nlora_target_modules = ['q_proj', 'lm_head']");
        assert!(
            told[0].contains("has `lm_head`, want `all-linear` or some of `q_proj`"),
            "{told:?}"
        );
        let told = faults("use_peft = true\nlora_target_modules = []");
        assert!(told[0].contains("is empty"), "{told:?}");
        let told = faults("use_peft = true\nfreeze_parameters_regex = 'embed'");
        assert!(told[0].contains("keep one of them"), "{told:?}");
        let told = faults("lora_r = 8");
        assert_eq!(told, ["`lora_r` changes nothing without `use_peft = true`"]);
    }
}
