//! Layered settings: defaults < file < `--set key=value` < flags.
//!
//! Every layer is a TOML table. Each value is first parsed on its own, so that the errors of all layers are reported
//! together, each with its location.

mod aliases;
mod locations;
mod nearest;
#[cfg(test)]
mod reference;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use embodied_r_grpo::settings::{
    Fault, GrpoSettings, InspectSettings, SftSettings, VisionSettings, names,
};
use embodied_r_rewards::{ExternalRewardConfig, RewardNames, RewardSchedule};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::{Table, Value};

use crate::args::device::DeviceName;
use crate::args::setting_flags::SettingFlag;
use crate::exit::Usage;

/// Settings that are resolved from layers; every field has a default.
pub(crate) trait Settings: Default + Serialize + DeserializeOwned {
    /// Invalid values that the types allow.
    fn faults(&self) -> Vec<Fault>;

    /// All errors in the value of `key`, for keys where parsing stops at the first. `given` holds the unparsed values
    /// of all layers.
    fn faults_of(_key: &str, _value: &Value, _given: &Table) -> Option<Vec<String>> {
        None
    }
}

impl Settings for GrpoSettings {
    fn faults(&self) -> Vec<Fault> {
        GrpoSettings::faults(self)
    }

    fn faults_of(key: &str, value: &Value, given: &Table) -> Option<Vec<String>> {
        let faults = match key {
            "stage" => RewardSchedule::from_toml(value, &reward_names(given)).err(),
            "reward" => ExternalRewardConfig::list_from_toml(value).err(),
            _ => return None,
        };
        Some(faults.map_or_else(Vec::new, |faults| faults.0))
    }
}

impl Settings for InspectSettings {
    fn faults(&self) -> Vec<Fault> {
        InspectSettings::faults(self)
    }
}

impl Settings for VisionSettings {
    fn faults(&self) -> Vec<Fault> {
        VisionSettings::faults(self)
    }
}

impl Settings for SftSettings {
    fn faults(&self) -> Vec<Fault> {
        SftSettings::faults(self)
    }
}

/// The rewards that stages may weight, including external rewards with errors of their own.
fn reward_names(given: &Table) -> RewardNames {
    let rewards = given.get("reward").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    RewardNames::new(rewards.iter().filter_map(|reward| reward.get("name")?.as_str()))
}

/// Settings that are only valid together: with a fault in one of them, faults of the others may be consequences.
const RELATED: [&str; 4] = ["num_train_epochs", "reward", "reward_weights", "stage"];

/// Whether `fault` may be a consequence of the faulty value of the setting `key`, which was left out.
fn may_follow(fault: &Fault, key: &str) -> bool {
    let of = fault.key.split(['.', '[']).next().unwrap_or_default();
    RELATED.contains(&key) && RELATED.contains(&of) || fault.what.contains(&format!("`{key}`"))
}

/// One layer: values and their locations, by path, such as `stage[1].weights`.
#[derive(Debug, Default)]
struct Layer {
    values: Table,
    locations: BTreeMap<String, String>,
}

impl Layer {
    /// One value under a dotted key.
    fn of(key: &str, value: Value, location: String) -> Self {
        let top = key.split('.').next().unwrap_or(key).to_owned();
        Self { values: nested(key, value), locations: BTreeMap::from([(top, location)]) }
    }

    /// Replaces TRL's names by ours, where `known` holds ours; returns an error for each setting that is given under
    /// two names.
    fn canonicalize(&mut self, known: &[&str]) -> Vec<String> {
        let mut faults = Vec::new();
        for (key, value) in std::mem::take(&mut self.values) {
            let name = aliases::canonical(&key, known).to_owned();
            let location = self.locations.get(&key).cloned().unwrap_or_default();
            if self.values.insert(name.clone(), value).is_some() {
                faults.push(format!("`{name}` is given under two names ({location})"));
            }
            self.locations.insert(name, location);
        }
        faults
    }
}

/// Settings being resolved.
#[derive(Debug, Default)]
pub(crate) struct Layers {
    layers: Vec<Layer>,
    faults: Vec<String>,
}

impl Layers {
    /// Adds the defaults that depend on the device: `precision`.
    pub(crate) fn defaults_on(mut self, device: DeviceName) -> Self {
        let precision = Value::String(device.default_precision().name().to_owned());
        let values = Table::from_iter([("precision".to_owned(), precision)]);
        self.layers.push(Layer { values, ..Layer::default() });
        self
    }

    /// Adds the settings of a TOML file.
    pub(crate) fn file(mut self, path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|source| {
            let error = anyhow::Error::new(Usage(format!("{source}")));
            error.context(format!("cannot read `{}`", path.display()))
        })?;
        self.layers.push(parse_file(path, &text)?);
        Ok(self)
    }

    /// Adds the settings saved with the checkpoint in `folder`.
    pub(crate) fn text(mut self, folder: &Path, text: &str) -> anyhow::Result<Self> {
        self.layers.push(parse_file(&folder.join("settings.toml"), text)?);
        Ok(self)
    }

    /// Adds `key=value` pairs; a value that is not TOML is a string, but for Python's `True` and `False`.
    pub(crate) fn pairs(mut self, pairs: &[String]) -> Self {
        for pair in pairs {
            let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.is_empty()) else {
                self.faults.push(format!("`--set` must be `key=value`, not `{pair}`"));
                continue;
            };
            self.layers.push(Layer::of(key, parsed(value), format!("in `--set {pair}`")));
        }
        self
    }

    /// Adds settings that are given as flags of their own; several values are a list.
    pub(crate) fn setting_flags(mut self, flags: &[SettingFlag]) -> Self {
        for (name, values) in flags {
            let value = match values.as_slice() {
                [value] => parsed(value),
                values => Value::Array(values.iter().map(|value| parsed(value)).collect()),
            };
            let location = format!("in `--{name} {}`", values.join(" "));
            self.layers.push(Layer::of(name, value, location));
        }
        self
    }

    /// Adds the rewards of `--reward-funcs` with weight 1 each; they replace the weights and stages of earlier layers.
    pub(crate) fn reward_funcs(mut self, names: &[String]) -> Self {
        if names.is_empty() {
            return self;
        }
        for layer in &mut self.layers {
            layer.values.remove("stage");
            layer.values.remove("reward_weights");
        }
        let weights = names.iter().map(|name| (name.clone(), Value::Float(1.0))).collect();
        let key = "reward_weights".to_owned();
        self.layers.push(Layer {
            values: Table::from_iter([(key.clone(), Value::Table(weights))]),
            locations: BTreeMap::from([(key, "in `--reward-funcs`".to_owned())]),
        });
        self
    }

    /// Adds the values of the flags that are given.
    pub(crate) fn flags(mut self, flags: &[(&str, Option<String>)]) -> Self {
        let given = flags.iter().filter_map(|(key, value)| Some((*key, value.clone()?)));
        self.layers.extend(given.map(|(key, value)| of_flag(key, Value::String(value))));
        self
    }

    /// Adds the paths of a flag that takes several; none if it is not given.
    ///
    /// # Errors
    /// A path is not UTF-8.
    pub(crate) fn paths(mut self, key: &str, paths: &[PathBuf]) -> anyhow::Result<Self> {
        let flag = format!("--{}", key.replace('_', "-"));
        let texts = paths.iter().filter_map(|path| path_text(&flag, Some(path)).transpose());
        let mut texts = texts.map(|text| text.map(Value::String)).collect::<Result<Vec<_>, _>>()?;
        match texts.len() {
            0 => {}
            1 => self.layers.extend(texts.pop().map(|path| of_flag(key, path))),
            _ => self.layers.push(of_flag(key, Value::Array(texts))),
        }
        Ok(self)
    }

    /// Merges the layers; some layer must give each key in `required`.
    pub(crate) fn resolve<T: Settings>(mut self, required: &[&str]) -> anyhow::Result<T> {
        let mut faults = self.faults;
        for layer in &mut self.layers {
            faults.extend(layer.canonicalize(names::<T>()));
        }
        let mut given = Table::new();
        for (key, value) in self.layers.iter().flat_map(|layer| &layer.values) {
            merge(&mut given, key.clone(), value.clone());
        }
        let mut merged = Table::new();
        let mut faulty = Vec::new();
        for layer in self.layers {
            for (key, value) in layer.values {
                let found = faults_of_value::<T>(&key, &value, &given);
                if found.is_empty() {
                    merge(&mut merged, key, value);
                } else {
                    let location = |fault: &str| locations::nearest(&layer.locations, &key, fault);
                    let located = |fault: String| format!("{fault} ({})", location(&fault));
                    faults.extend(found.into_iter().map(located));
                    faulty.push(key);
                }
            }
        }
        let is_empty = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
        let missing = |key: &&&str| merged.get(**key).is_none_or(is_empty);
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
        let is_first = |fault: &&Fault| !faulty.iter().any(|key| may_follow(fault, key));
        faults.extend(own.iter().filter(is_first).map(ToString::to_string));
        match settings {
            Some(settings) if faults.is_empty() => Ok(settings),
            _ => Err(Usage(listed(&faults)).into()),
        }
    }
}

/// The settings as TOML, as saved with a run.
pub(crate) fn text<T: Settings>(settings: &T) -> anyhow::Result<String> {
    toml::to_string_pretty(settings).context("cannot write the settings as TOML")
}

/// Saved settings as [`text`] writes them: settings that are newer than the file have their defaults.
pub(crate) fn with_defaults<T: Settings>(saved: &str) -> anyhow::Result<String> {
    match toml::from_str::<T>(saved) {
        Ok(settings) => text(&settings),
        Err(_) => Ok(saved.to_owned()),
    }
}

/// Keys in which two sets of settings differ, except those in `free`.
pub(crate) fn differences(before: &str, now: &str, free: &[&str]) -> anyhow::Result<Vec<String>> {
    let (before, now): (Table, Table) = (toml::from_str(before)?, toml::from_str(now)?);
    let mut keys: Vec<&String> = before.keys().chain(now.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs =
        |key: &&String| before.get(*key) != now.get(*key) && !free.contains(&key.as_str());
    Ok(keys.into_iter().filter(differs).cloned().collect())
}

/// The layer of one flag.
fn of_flag(key: &str, value: Value) -> Layer {
    Layer::of(key, value, format!("in `--{}`", key.replace('_', "-")))
}

fn parse_file(path: &Path, text: &str) -> anyhow::Result<Layer> {
    let fault = |error: toml::de::Error| {
        let error = Usage(error.to_string().trim_end().to_owned());
        anyhow::Error::new(error).context(format!("cannot parse `{}`", path.display()))
    };
    let values: Table = toml::from_str(text).map_err(fault)?;
    let spanned = toml::de::DeTable::parse(text).map_err(fault)?;
    let locations = locations::of(spanned.get_ref(), text, path);
    Ok(Layer { values, locations })
}

/// The value that a word on the command line stands for.
fn parsed(word: &str) -> Value {
    let toml = match word {
        "True" => "true",
        "False" => "false",
        other => other,
    };
    toml::from_str::<Table>(&format!("value = {toml}"))
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(word.to_owned()))
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

/// Sets `key` to `value`; tables are merged entry by entry.
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

/// The message about a setting that there is not.
pub(crate) fn unknown_setting<T: Settings>(key: &str) -> String {
    let (known, unknown) = (names::<T>(), format!("unknown setting `{key}`"));
    match (aliases::replacement(key, known), nearest::nearest(key, known)) {
        (Some(replacement), _) => format!("{unknown}; {replacement}"),
        (None, Some(nearest)) => format!("{unknown}; did you mean `{nearest}`?"),
        (None, None) => format!("{unknown}; available: {}", known.join(", ")),
    }
}

/// The name here of a setting under a name of TRL or ms-swift.
pub(crate) fn canonical_name<T: Settings>(name: &str) -> &str {
    aliases::canonical(name, names::<T>())
}

/// All names that a setting may be given under, and those of TRL that an error explains.
pub(crate) fn flag_names<T: Settings>() -> Vec<&'static str> {
    let known = names::<T>();
    known.iter().copied().chain(aliases::of(known)).collect()
}

/// Errors in one value on its own.
fn faults_of_value<T: Settings>(key: &str, value: &Value, given: &Table) -> Vec<String> {
    let known = names::<T>();
    if !known.contains(&key) {
        return vec![unknown_setting::<T>(key)];
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
        return format!("invalid settings: {fault}");
    }
    let mut text = format!("{} invalid settings:", faults.len());
    for fault in faults {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n  - {fault}");
    }
    text
}

/// The path given by `flag` as a setting's value, which is text.
///
/// # Errors
/// The path is not UTF-8: as text it would name another one.
pub(crate) fn path_text(flag: &str, path: Option<&Path>) -> anyhow::Result<Option<String>> {
    let text = |path: &Path| {
        let not_text = || {
            let path = path.display();
            Usage(format!(
                "`{flag}`: the path `{path}` is not UTF-8, in which settings are saved; rename it"
            ))
        };
        path.to_str().map(str::to_owned).ok_or_else(not_text)
    };
    Ok(path.map(text).transpose()?)
}

#[cfg(test)]
mod tests;
