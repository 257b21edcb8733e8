//! Settings in layers: defaults < file < `--set key=value` < flags.
//!
//! Every layer is a TOML table. Each value is read on its own first, so that all faults of all
//! layers are told at once, each with its place.

mod fields;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use embodied_r_grpo::settings::{Fault, LossSettings, Sft, Train};
use embodied_r_rewards::{ExternalReward, Names, Schedule};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::exit::Usage;

/// Settings that can be read in layers; every field has a default.
pub(crate) trait Settings: Default + Serialize + DeserializeOwned {
    /// What the types leave possible and is wrong all the same.
    fn faults(&self) -> Vec<Fault>;

    /// Faults of the value of `key`, where reading it would name only the first. `given` holds all
    /// values of all layers, unread.
    fn faults_of(_key: &str, _value: &Value, _given: &Table) -> Option<Vec<String>> {
        None
    }
}

impl Settings for Train {
    fn faults(&self) -> Vec<Fault> {
        Train::faults(self)
    }

    fn faults_of(key: &str, value: &Value, given: &Table) -> Option<Vec<String>> {
        let faults = match key {
            "stage" => Schedule::from_toml(value, &reward_names(given)).err(),
            "reward" => ExternalReward::list_from_toml(value).err(),
            _ => return None,
        };
        Some(faults.map_or_else(Vec::new, |faults| faults.0))
    }
}

impl Settings for LossSettings {
    fn faults(&self) -> Vec<Fault> {
        LossSettings::faults(self)
    }
}

impl Settings for Sft {
    fn faults(&self) -> Vec<Fault> {
        Sft::faults(self)
    }
}

/// The names that stages may weigh, beside outside rewards that may have faults themselves.
fn reward_names(given: &Table) -> Names {
    let rewards = given.get("reward").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    Names::new(rewards.iter().filter_map(|reward| reward.get("name")?.as_str()))
}

/// One layer: values, and where each of them stands.
#[derive(Debug, Default)]
struct Layer {
    values: Table,
    places: BTreeMap<String, String>,
}

/// Settings as they are put together.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    faults: Vec<String>,
}

impl Layers {
    /// Adds the settings of a TOML file.
    pub(crate) fn file(mut self, path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let error = anyhow::Error::new(Usage(format!("{source}")));
            error.context(format!("cannot read the settings `{}`", path.display()))
        })?;
        self.layers.push(parse_file(path, &text)?);
        Ok(self)
    }

    /// Adds the settings that were written beside the checkpoint in `folder`.
    pub(crate) fn text(mut self, folder: &Path, text: &str) -> anyhow::Result<Self> {
        self.layers.push(parse_file(&folder.join("settings.toml"), text)?);
        Ok(self)
    }

    /// Adds `key=value` pairs; a value that is no TOML is taken as text.
    pub(crate) fn pairs(mut self, pairs: &[String]) -> Self {
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                self.faults.push(format!("`--set {pair}` is not `key=value`"));
                continue;
            };
            let place = format!("in `--set {pair}`");
            let value = toml::from_str::<Table>(&format!("value = {value}"))
                .ok()
                .and_then(|mut table| table.remove("value"))
                .unwrap_or_else(|| Value::String(value.to_owned()));
            let mut layer = Layer::default();
            let top = key.split('.').next().unwrap_or(key);
            layer.places.insert(top.to_owned(), place);
            layer.values = nested(key, value);
            self.layers.push(layer);
        }
        self
    }

    /// Adds the values of flags that were given.
    pub(crate) fn flags(mut self, flags: &[(&str, Option<String>)]) -> Self {
        let mut layer = Layer::default();
        for (key, value) in flags {
            if let Some(value) = value {
                layer.values.insert((*key).to_owned(), Value::String(value.clone()));
                let place = format!("in `--{}`", key.replace('_', "-"));
                layer.places.insert((*key).to_owned(), place);
            }
        }
        self.layers.push(layer);
        self
    }

    /// Puts the layers together; what must be given in some layer is named in `required`.
    pub(crate) fn resolve<T: Settings>(self, required: &[&str]) -> anyhow::Result<T> {
        let mut faults = self.faults;
        let mut given = Table::new();
        for (key, value) in self.layers.iter().flat_map(|layer| &layer.values) {
            merge(&mut given, key.clone(), value.clone());
        }
        let mut merged = Table::new();
        for layer in self.layers {
            for (key, value) in layer.values {
                let place = layer.places.get(&key).map_or("", String::as_str);
                let found = faults_of_value::<T>(&key, &value, &given);
                if found.is_empty() {
                    merge(&mut merged, key, value);
                } else {
                    faults.extend(found.into_iter().map(|fault| format!("{fault} ({place})")));
                }
            }
        }
        let missing = |key: &&&str| !merged.contains_key(**key);
        for key in required.iter().filter(missing) {
            faults.push(format!("`{key}` is missing; give it in the file or as `--{key}`"));
        }
        let settings: Option<T> = match Value::Table(merged).try_into() {
            Ok(settings) => Some(settings),
            Err(error) => {
                if faults.is_empty() {
                    faults.push(error.message().to_owned());
                }
                None
            }
        };
        let own = settings.as_ref().map(Settings::faults).unwrap_or_default();
        faults.extend(own.iter().map(ToString::to_string));
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(Usage(listed(&faults)).into()),
        }
    }
}

/// The settings as TOML, as they are written beside a run.
pub(crate) fn text<T: Settings>(settings: &T) -> anyhow::Result<String> {
    toml::to_string_pretty(settings).context("cannot write the settings as TOML")
}

/// Keys in which two sets of settings differ, but for `free` ones.
pub(crate) fn differences(before: &str, now: &str, free: &[&str]) -> anyhow::Result<Vec<String>> {
    let (before, now): (Table, Table) = (toml::from_str(before)?, toml::from_str(now)?);
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs =
        |key: &&String| before.get(*key) != now.get(*key) && !free.contains(&key.as_str());
    Ok(keys.into_iter().filter(differs).cloned().collect())
}

fn parse_file(path: &Path, text: &str) -> anyhow::Result<Layer> {
    let fault = |error: toml::de::Error| {
        let error = Usage(error.to_string().trim_end().to_owned());
        anyhow::Error::new(error).context(format!("`{}` is not TOML", path.display()))
    };
    let values: Table = toml::from_str(text).map_err(fault)?;
    let spanned = toml::de::DeTable::parse(text).map_err(fault)?;
    let places = spanned
        .get_ref()
        .keys()
        .map(|key| {
            let line = text[..key.span().start].matches('\n').count() + 1;
            (key.get_ref().to_string(), format!("line {line} of `{}`", path.display()))
        })
        .collect();
    Ok(Layer { values, places })
}

/// A value under a dotted key, as nested tables.
fn nested(key: &str, value: Value) -> Table {
    match key.split_once('.') {
        Some((first, rest)) => {
            Table::from_iter([(first.to_owned(), Value::Table(nested(rest, value)))])
        }
        None => Table::from_iter([(key.to_owned(), value)]),
    }
}

/// Puts `value` over what is there; the entries of tables one by one.
fn merge(into: &mut Table, key: String, value: Value) {
    match (into.get_mut(&key), value) {
        (Some(Value::Table(old)), Value::Table(new)) => {
            for (key, value) in new {
                merge(old, key, value);
            }
        }
        (_, value) => {
            into.insert(key, value);
        }
    }
}

/// What is wrong with one value by itself.
fn faults_of_value<T: Settings>(key: &str, value: &Value, given: &Table) -> Vec<String> {
    let known = fields::of::<T>();
    if !known.contains(&key) {
        return vec![match fields::nearest(key, known) {
            Some(nearest) => format!("there is no setting `{key}`; did you mean `{nearest}`?"),
            None => format!("there is no setting `{key}`; known are {}", known.join(", ")),
        }];
    }
    if let Some(faults) = T::faults_of(key, value, given) {
        return faults;
    }
    let alone = Table::from_iter([(key.to_owned(), value.clone())]);
    match Value::Table(alone).try_into::<T>() {
        Ok(_) => Vec::new(),
        Err(error) => vec![format!("`{key}`: {}", error.message())],
    }
}

fn listed(faults: &[String]) -> String {
    if let [fault] = faults {
        return format!("wrong settings: {fault}");
    }
    let mut text = format!("{} wrong settings:", faults.len());
    for fault in faults {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  - {fault}");
    }
    text
}

/// A path as the text of a flag's value.
pub(crate) fn path_text(path: Option<&Path>) -> Option<String> {
    path.map(|path| path.display().to_string())
}

#[cfg(test)]
mod tests;
