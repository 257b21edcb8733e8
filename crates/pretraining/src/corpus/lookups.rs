//! Single lookups in the captions of a video.

use embodied_r_random::Rng;
use embodied_r_sim::CaptionTrace;
use embodied_r_sim::statement::{Sighting, Statement, Which};
use embodied_r_sim::wording::{OBJECT_NAMES, bearing_text};

/// A kind of lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lookup {
    /// `first lamp left 30, frame 1.`
    First,
    /// `last lamp left 30, frame 1.`
    Last,
    /// `faced lamp left 10, frame 1.`
    Faced,
    /// `all lamp: left 30, right 30.`
    Every,
    /// `view 3: lamp left 30, bed ahead.`
    View,
    /// `frame 3 after rotate left 60.`
    Action,
}

impl Lookup {
    /// The lookups of an object.
    pub(super) const BY_NAME: [Self; 4] = [Self::First, Self::Last, Self::Faced, Self::Every];
}

/// Looks things up in one video's captions.
pub(super) struct Lookups<'a> {
    pub(super) trace: &'a CaptionTrace,
    /// The candidate objects, visible or not.
    names: &'a [String],
    /// The objects that the captions mention.
    seen: Vec<String>,
}

impl<'a> Lookups<'a> {
    pub(super) fn new(names: &'a [String], trace: &'a CaptionTrace) -> Self {
        let seen = names.iter().filter(|name| trace.first_sight(name).is_some()).cloned().collect();
        Self { trace, names, seen }
    }

    /// A random object that the captions mention.
    pub(super) fn subject(&self, rng: &mut Rng) -> Option<String> {
        rng.pick(&self.seen).cloned()
    }

    /// A lookup of a random object or frame.
    pub(super) fn any(&self, lookup: Lookup, rng: &mut Rng) -> String {
        match lookup {
            Lookup::View => self.view(rng.below(self.trace.frames.len())),
            Lookup::Action => self.action(rng.below(self.trace.frames.len())),
            lookup => self.about(lookup, &self.name(rng)),
        }
    }

    /// A lookup of `name`: one of [`Lookup::BY_NAME`].
    pub(super) fn about(&self, lookup: Lookup, name: &str) -> String {
        let (which, at) = match lookup {
            Lookup::First => (Which::First, self.trace.first_sight(name)),
            Lookup::Faced => (Which::Faced, self.trace.last_faced(name)),
            Lookup::Every => return self.every(name),
            _ => (Which::Last, self.trace.last_sight(name)),
        };
        let at = at.map(|(frame, bearing_deg)| Sighting { bearing_deg, frame });
        format!("{}.", Statement::Sighting { which, name: name.to_owned(), at })
    }

    /// A name, mostly of a visible object, sometimes of one that is absent.
    fn name(&self, rng: &mut Rng) -> String {
        let other = rng.pick(&OBJECT_NAMES).copied().unwrap_or_default();
        match rng.pick(self.names) {
            Some(name) if !rng.chance(0.1) => name.clone(),
            _ => other.to_owned(),
        }
    }

    fn every(&self, name: &str) -> String {
        let bearings: Vec<_> = (0..self.trace.frames.len())
            .filter_map(|frame| Some(bearing_text(self.trace.bearing_in(frame, name)?)))
            .collect();
        format!("all {name}: {}.", list_or_none(&bearings))
    }

    fn view(&self, frame: usize) -> String {
        let objects: Vec<_> = self.trace.frames[frame]
            .seen
            .iter()
            .map(|seen| format!("{} {}", seen.name, bearing_text(seen.bearing_deg)))
            .collect();
        format!("view {frame}: {}.", list_or_none(&objects))
    }

    fn action(&self, frame: usize) -> String {
        match &self.trace.frames[frame].action {
            Some(action) => format!("frame {frame} after {}.", action.text),
            None => format!("frame {frame} start."),
        }
    }
}

/// The items separated by commas, or `none`.
fn list_or_none(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}
