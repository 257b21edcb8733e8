//! The target modules of an adapter.

use embodied_r_policy::lora::Module;
use embodied_r_vision::VisionModule;

use super::ALL_LINEAR;
use crate::settings::VisionSettings;
use crate::settings::faults::Faults;

/// What `lora_target_modules` names of a model, without the frozen parts of its vision encoder.
#[derive(Debug, Default)]
pub(super) struct Targets<'a> {
    /// Modules of the decoder, in its order.
    pub(super) decoder: Vec<Module>,
    /// Layers of the vision encoder, in its order.
    pub(super) vision: Vec<&'static VisionModule>,
    /// Entries that name nothing.
    unknown: Vec<&'a str>,
    /// Entries that name only frozen layers, with one of these.
    frozen: Vec<(&'a str, &'static VisionModule)>,
}

impl<'a> Targets<'a> {
    pub(super) fn new(names: &'a [String], vision: &VisionSettings) -> Self {
        let is_trained = |module: &&VisionModule| match module.is_of_merger() {
            true => !vision.freeze_aligner,
            false => !vision.freeze_vision_tower,
        };
        let mut found = Self::default();
        for name in names {
            if name == ALL_LINEAR {
                found.decoder.extend(Module::ALL);
                found.vision.extend(VisionModule::all().iter().filter(is_trained));
                continue;
            }
            let decoder = Module::ALL.into_iter().filter(|module| module.is_named_by(name));
            let decoder: Vec<Module> = decoder.collect();
            let vision = VisionModule::all().iter().filter(|module| module.is_named_by(name));
            let (trained, frozen): (Vec<_>, Vec<_>) = vision.partition(is_trained);
            if decoder.is_empty() && trained.is_empty() {
                match frozen.first() {
                    Some(module) => found.frozen.push((name, module)),
                    None => found.unknown.push(name),
                }
            }
            found.decoder.extend(decoder);
            found.vision.extend(trained);
        }
        found.decoder.sort_unstable();
        found.decoder.dedup();
        let named = std::mem::take(&mut found.vision);
        found.vision.extend(VisionModule::all().iter().filter(|module| named.contains(module)));
        found
    }

    /// Reports entries without effect, and trained parts without a target.
    pub(super) fn add_faults(&self, vision: &VisionSettings, faults: &mut Faults) {
        let mut add = |text: String| faults.unless(false, "lora_target_modules", || text);
        for name in &self.unknown {
            if *name == "proj" {
                add("contains `proj`, which also names the patch embedding, a convolution; use `attn.proj`".into());
                continue;
            }
            let decoder = Module::ALL.map(Module::short_name);
            let encoder: Vec<&str> = VisionModule::all().iter().map(VisionModule::name).collect();
            add(format!(
                "contains `{name}`, expected `{ALL_LINEAR}` or any of `{}`, of the vision encoder `{}`",
                decoder.join("`, `"),
                encoder.join("`, `")
            ));
        }
        for (name, module) in &self.frozen {
            let (part, setting) = part(module.is_of_merger());
            add(format!(
                "contains `{name}`, of the {part}, which is frozen: set `{setting} = false`"
            ));
        }
        if !self.unknown.is_empty() || !self.frozen.is_empty() {
            return;
        }
        if self.decoder.is_empty() {
            add(format!(
                "names no module of the decoder; add one, such as `{}`",
                Module::Q.short_name()
            ));
        }
        for (is_merger, is_trained) in
            [(false, !vision.freeze_vision_tower), (true, !vision.freeze_aligner)]
        {
            let is_named = self.vision.iter().any(|module| module.is_of_merger() == is_merger);
            if is_trained && !is_named {
                let (part, setting) = part(is_merger);
                let example = VisionModule::all().iter().find(|it| it.is_of_merger() == is_merger);
                let example = example.map_or("", |module| module.name());
                add(format!(
                    "names no layer of the {part}, which `{setting} = false` trains; add one, such as `{example}`"
                ));
            }
        }
    }
}

/// A part of the vision encoder, and the setting that freezes it.
fn part(is_merger: bool) -> (&'static str, &'static str) {
    match is_merger {
        true => ("aligner", "freeze_aligner"),
        false => ("vision tower", "freeze_vision_tower"),
    }
}
