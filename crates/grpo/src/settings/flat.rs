//! Groups of settings that are written side by side.

use serde::de::{self, DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde::{Serialize, forward_to_deserialize_any};
use toml::Table;

/// The names of the settings of `T` in declaration order; empty if it is not a struct with named fields.
pub fn names<T: DeserializeOwned>() -> &'static [&'static str] {
    let mut names: &'static [&'static str] = &[];
    // Deserialization fails as soon as the names are known.
    let _ = T::deserialize(Names(&mut names));
    names
}

/// Reads settings called `names`: those that are not given have the defaults of `T`. `groups` reads a table of all.
///
/// Serde alone would give them the defaults of their group, and does not refuse unknown names beside flattened groups.
pub(super) fn read<'de, T: Default + Serialize, D: Deserializer<'de>>(
    deserializer: D,
    names: &'static [&'static str],
    groups: fn(Table) -> Result<T, toml::de::Error>,
) -> Result<T, D::Error> {
    let given = deserializer.deserialize_struct("settings", names, Given(names))?;
    let mut all = Table::try_from(T::default()).map_err(de::Error::custom)?;
    all.extend(given);
    groups(all).map_err(|error| de::Error::custom(error.message()))
}

/// The given settings.
struct Given(&'static [&'static str]);

impl<'de> Visitor<'de> for Given {
    type Value = Table;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut given = Table::new();
        while let Some((name, value)) = map.next_entry::<String, toml::Value>()? {
            if !self.0.contains(&name.as_str()) {
                return Err(de::Error::unknown_field(&name, self.0));
            }
            given.insert(name, value);
        }
        Ok(given)
    }
}

/// A deserializer that only notes the names of a struct's fields.
struct Names<'a>(&'a mut &'static [&'static str]);

impl<'de> Deserializer<'de> for Names<'_> {
    type Error = de::value::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        *self.0 = fields;
        Err(de::Error::custom("only the names are needed"))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("not a struct"))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Serializes and deserializes `$settings`, whose fields are all groups, as one flat table. The struct derives both
/// with `#[serde(remote = "Self")]`.
macro_rules! flat {
    ($settings:ty: $($group:ty),+) => {
        impl serde::Serialize for $settings {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl<'de> serde::Deserialize<'de> for $settings {
            fn deserialize<D: serde::Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
                static NAMES: std::sync::LazyLock<Vec<&str>> =
                    std::sync::LazyLock::new(|| [$($crate::settings::names::<$group>()),+].concat());
                $crate::settings::flat::read(input, &NAMES, |all| Self::deserialize(all))
            }
        }
    };
}
pub(super) use flat;

#[cfg(test)]
mod tests {
    use super::super::{GrpoSettings, LossSettings, SftSettings};
    use super::*;
    use crate::schedule::WarmupSteps;

    #[test]
    fn settings_that_are_not_given_have_the_defaults_of_the_run_not_of_their_group() {
        let grpo: GrpoSettings = toml::from_str("temperature = 0.5\nlora_r = 8").unwrap();
        let expected = GrpoSettings::default().with(|s| {
            s.loss.temperature = 0.5;
            s.trainable.lora_r = 8;
        });
        assert_eq!(grpo, expected);
        assert_ne!(grpo.loss.beta, LossSettings::default().beta);
        let sft: SftSettings = toml::from_str("warmup_steps = 3\nmodel = 'm'").unwrap();
        let expected = SftSettings::default().with(|s| {
            s.lr.warmup_steps = Some(WarmupSteps::Steps(3));
            s.run.model = "m".into();
        });
        assert_eq!(sft, expected);
    }

    #[test]
    fn names_beside_the_groups_and_values_of_other_types_are_refused() {
        let refused = |text: &str| toml::from_str::<SftSettings>(text).unwrap_err().to_string();
        assert!(refused("beta = 0.1").contains("unknown field `beta`"));
        assert!(refused("max_length = 'long'").contains("invalid type: string \"long\""));
        assert!(refused("optim = 'sgd'").contains("unknown variant `sgd`"));
    }

    #[test]
    fn every_setting_has_one_group() {
        for names in [names::<GrpoSettings>(), names::<SftSettings>(), names::<LossSettings>()] {
            let distinct: std::collections::BTreeSet<_> = names.iter().collect();
            assert_eq!(distinct.len(), names.len());
            assert!(names.len() > 15);
        }
        let written = Table::try_from(GrpoSettings::default()).unwrap();
        let known = names::<GrpoSettings>();
        assert!(written.keys().all(|name| known.contains(&name.as_str())));
    }
}
