//! Statements about the captions of a video.

use crate::caption_trace::{CaptionTrace, bearing_text};
use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rationale::{
    BearingMap, Quadrant, faced_text, list_or_none, quoted, seen_text, target_text, tracked,
};
use crate::rng::Rng;

/// Generates statements about one video's captions.
pub(super) struct Statements<'a> {
    trace: &'a CaptionTrace,
    /// The candidate objects, visible or not.
    names: &'a [String],
    /// The objects that the captions mention.
    seen: Vec<String>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(names: &'a [String], trace: &'a CaptionTrace) -> Self {
        let seen = names.iter().filter(|name| trace.first_sight(name).is_some()).cloned().collect();
        Self { trace, names, seen }
    }

    /// A random line of statements.
    pub(super) fn any(&self, rng: &mut Rng) -> String {
        match rng.below(14) {
            0 => self.several(rng, 4, Self::any_first),
            1 => self.several(rng, 4, Self::any_last),
            2 => self.several(rng, 2, Self::any_every_sight),
            3 => self.several(rng, 3, Self::view),
            4 => self.several(rng, 4, Self::turn),
            5..=7 => self.any_chain(rng),
            8 => self.now(rng),
            9 => self.directions(rng),
            10 => self.nearest(rng),
            11 => self.order(rng),
            12 => self.faced(rng),
            _ => self.map(rng),
        }
    }

    /// Many lookups of one kind.
    pub(super) fn of_one_kind(&self, rng: &mut Rng) -> String {
        let kinds = [
            Self::any_first,
            Self::any_last,
            Self::any_last,
            Self::any_every_sight,
            Self::view,
            Self::turn,
            Self::turn,
            Self::order,
            Self::faced,
            Self::map,
        ];
        let kind = kinds[rng.below(kinds.len())];
        let words = 40 + rng.below(40);
        super::lines_of(words, || kind(self, rng))
    }

    /// First and last sights of objects by name.
    pub(super) fn by_name(&self, rng: &mut Rng) -> String {
        super::lines_of(80, || match rng.chance(0.5) {
            true => self.any_first(rng),
            false => self.any_last(rng),
        })
    }

    /// A random object that the captions mention.
    pub(super) fn subject(&self, rng: &mut Rng) -> Option<String> {
        rng.pick(&self.seen).cloned()
    }

    /// A random line about `subject`.
    pub(super) fn about(&self, subject: &str, rng: &mut Rng) -> String {
        match rng.below(4) {
            0 => self.first(subject),
            1 => self.last(subject),
            2 => self.every_sight(subject),
            _ => self.chain(subject, rng),
        }
    }

    fn several(&self, rng: &mut Rng, most: usize, one: fn(&Self, &mut Rng) -> String) -> String {
        let count = 1 + rng.below(most);
        (0..count).map(|_| one(self, rng)).collect::<Vec<_>>().join(" ")
    }

    fn frame(&self, rng: &mut Rng) -> usize {
        rng.below(self.trace.frames.len())
    }

    /// A name, mostly of an object in the room, sometimes of an absent one.
    fn name(&self, rng: &mut Rng) -> String {
        let other = rng.pick(&KINDS).map_or("", |kind| kind.name);
        match rng.pick(self.names) {
            Some(name) if !rng.chance(0.1) => name.clone(),
            _ => other.to_owned(),
        }
    }

    fn any_first(&self, rng: &mut Rng) -> String {
        self.first(&self.name(rng))
    }

    /// `first lamp left 30, 3 m; bed ahead, 2 m.`
    fn first(&self, name: &str) -> String {
        let sight = self.trace.first_sight(name).and_then(|(f, _)| quoted(f, name, self.trace));
        match sight {
            Some(quote) => format!("first {quote}."),
            None => format!("first {name}: none."),
        }
    }

    fn any_last(&self, rng: &mut Rng) -> String {
        self.last(&self.name(rng))
    }

    /// `last lamp left 30, 3 m; bed ahead, 2 m.`
    fn last(&self, name: &str) -> String {
        let sight = self.trace.last_sight(name).and_then(|(f, _)| quoted(f, name, self.trace));
        match sight {
            Some(quote) => format!("last {quote}."),
            None => format!("last {name}: none."),
        }
    }

    fn any_every_sight(&self, rng: &mut Rng) -> String {
        self.every_sight(&self.name(rng))
    }

    /// `all lamp: left 30, right 30.`
    fn every_sight(&self, name: &str) -> String {
        let sights: Vec<_> = (0..self.trace.frames.len())
            .filter_map(|frame| Some(bearing_text(self.trace.bearing_in(frame, name)?)))
            .collect();
        format!("all {name}: {}.", list_or_none(&sights))
    }

    /// `view 3: lamp left 30, bed ahead.`
    fn view(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        let objects: Vec<_> = self.trace.frames[frame]
            .seen
            .iter()
            .map(|seen| format!("{} {}", seen.name, bearing_text(seen.bearing_deg)))
            .collect();
        format!("view {frame}: {}.", list_or_none(&objects))
    }

    /// `frame 3: rotate left 60.`
    fn turn(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        let action = self.trace.frames[frame].action.as_ref();
        format!("frame {frame}: {}.", action.map_or("start", |action| &action.text))
    }

    fn any_chain(&self, rng: &mut Rng) -> String {
        match self.subject(rng) {
            Some(name) => self.chain(&name, rng),
            None => self.any_last(rng),
        }
    }

    /// An object's bearing tracked to the last frame, and its final quadrant.
    fn chain(&self, name: &str, rng: &mut Rng) -> String {
        let chain = tracked(name, self.trace);
        let Some((mut statements, bearing)) = chain else { return self.last(name) };
        if rng.chance(0.7) {
            statements.push(format!("so {}.", Quadrant::of(f64::from(bearing)).direction()));
        }
        statements.join(" ")
    }

    /// Some objects' bearings tracked to the last frame, then the objects of each quadrant.
    fn now(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(2);
        let mut statements = Vec::new();
        let mut now: Vec<(Quadrant, String)> = Vec::new();
        for name in rng.sample(&self.seen, count) {
            let Some((mut chain, bearing)) = tracked(&name, self.trace) else { continue };
            statements.append(&mut chain);
            now.push((Quadrant::of(f64::from(bearing)), name));
        }
        for quadrant in Quadrant::ALL {
            let there: Vec<_> = now
                .iter()
                .filter(|(at, _)| *at == quadrant)
                .map(|(_, name)| name.clone())
                .collect();
            statements.push(format!("now {}: {}.", quadrant.direction(), list_or_none(&there)));
        }
        statements.join(" ")
    }

    fn map(&self, _: &mut Rng) -> String {
        BearingMap::new(self.trace).text
    }

    /// A map, then the directions of some objects, then the angle from one to another.
    fn directions(&self, rng: &mut Rng) -> String {
        let map = BearingMap::new(self.trace);
        let mut statements = vec![map.text.clone()];
        let mut directions = Vec::new();
        for name in rng.sample(&self.seen, 3) {
            let Some((text, direction)) = map.direction(&name) else { continue };
            statements.push(format!("{text}."));
            directions.push((name, direction));
        }
        if let [.., (a, from), (b, to)] = directions.as_slice() {
            statements.push(format!("{a} to {b}: {}.", bearing_text(wrap_whole(to - from))));
        }
        statements.join(" ")
    }

    /// Which object is nearest to a direction.
    fn nearest(&self, rng: &mut Rng) -> String {
        let map = BearingMap::new(self.trace);
        let from = if rng.chance(0.5) { 0 } else { map.heading };
        let (target_statement, target) = target_text(from, wrap_whole(10 * rng.below(36) as i32));
        let mut statements = vec![map.text.clone(), target_statement];
        let count = 2 + rng.below(3);
        let mut names = rng.sample(&self.seen, count);
        names.retain(|name| map.direction(name).is_some());
        if let Some((mut angles, name)) = map.nearest(&names, target) {
            statements.append(&mut angles);
            statements.push(format!("so {name}."));
        }
        statements.join(" ")
    }

    /// All visible objects, then some of them in order of first appearance.
    fn order(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(3);
        let mut firsts: Vec<(usize, String)> = Vec::new();
        for name in rng.sample(&self.seen, self.seen.len()) {
            let Some((frame, _)) = self.trace.first_sight(&name) else { continue };
            if firsts.len() < count && firsts.iter().all(|(other, _)| *other != frame) {
                firsts.push((frame, name));
            }
        }
        let names: Vec<_> = firsts.iter().map(|(_, name)| name.clone()).collect();
        firsts.sort_unstable();
        let ordered: Vec<_> = firsts.into_iter().map(|(_, name)| name).collect();
        let seen = seen_text(&names, self.trace);
        format!("{}: {seen} so {}.", list_or_none(&names), list_or_none(&ordered))
    }

    /// The frames that face some objects, then the object faced last.
    fn faced(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(3);
        let names = rng.sample(self.names, count);
        let faced = || names.iter().filter_map(|name| Some((self.trace.last_faced(name)?, name)));
        let mut text = format!("{}: {}", list_or_none(&names), faced_text(&names, self.trace));
        if let Some((latest, name)) = faced().max()
            && faced().filter(|(frame, _)| *frame == latest).count() == 1
        {
            text.push_str(&format!(" so {name}."));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captions::captions_at;
    use crate::geometry::bearing_deg;
    use crate::world::{draw, keyframes_by_pose, names};

    #[test]
    fn statements_about_now_are_true_in_rooms_without_moves() {
        let mut checked = 0;
        for seed in 0..100 {
            let scene = draw(&[seed]);
            let end = scene.camera.last().unwrap();
            if end.position_m != scene.camera[0].position_m {
                continue;
            }
            let captions = captions_at(&scene, &keyframes_by_pose(&scene));
            let trace = CaptionTrace::from_captions(&captions).unwrap();
            let text = Statements::new(&names(&scene), &trace).now(&mut Rng::new(&[seed]));
            for object in &scene.objects {
                let bearing = bearing_deg(end, object);
                if (bearing.abs() - 45.0).abs().min((bearing.abs() - 135.0).abs()) < 6.0 {
                    continue;
                }
                for quadrant in Quadrant::ALL {
                    let listed =
                        text.split(&format!("now {}: ", quadrant.direction())).nth(1).unwrap();
                    let listed = listed.split('.').next().unwrap();
                    if listed.split(", ").any(|name| name == object.name) {
                        assert_eq!(quadrant, Quadrant::of(bearing), "{text}");
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 30, "{checked}");
    }

    #[test]
    fn every_kind_of_statement_occurs() {
        let scene = draw(&[1]);
        let captions = captions_at(&scene, &keyframes_by_pose(&scene));
        let trace = CaptionTrace::from_captions(&captions).unwrap();
        let names = names(&scene);
        let statements = Statements::new(&names, &trace);
        let mut rng = Rng::new(&[2]);
        let text: Vec<_> = (0..400).map(|_| statements.any(&mut rng)).collect();
        let text = text.join("\n");
        for beginning in ["first ", "last ", "all ", "view ", "frame ", "map: "] {
            assert!(text.lines().any(|line| line.starts_with(beginning)), "{beginning}");
        }
        for within in [": seen: ", ": faced: ", " target ", " now ahead: ", " off ", " so "] {
            assert!(text.contains(within), "{within}");
        }
    }
}
