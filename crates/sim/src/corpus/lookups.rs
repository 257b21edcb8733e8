//! Statements about the captions of a video.

use crate::catalogue::KINDS;
use crate::geometry::wrap_whole;
use crate::rationale::{Quadrant, carried, faced_text, first_text, headings_text, placed};
use crate::rng::Rng;
use crate::trace::{Trace, bearing_text};

/// What can be said about one video's captions.
pub(super) struct Statements<'a> {
    trace: &'a Trace,
    /// What may be asked for, seen or not.
    names: &'a [String],
    /// Those that the captions mention.
    seen: Vec<String>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(names: &'a [String], trace: &'a Trace) -> Self {
        let seen = names.iter().filter(|name| trace.first_sight(name).is_some()).cloned().collect();
        Self { trace, names, seen }
    }

    /// A random line of statements.
    pub(super) fn any(&self, rng: &mut Rng) -> String {
        match rng.below(16) {
            0 => self.several(rng, 4, Self::first),
            1 => self.several(rng, 4, Self::last),
            2 => self.several(rng, 2, Self::every_sight),
            3 => self.several(rng, 3, Self::view),
            4 => self.several(rng, 4, Self::turn),
            5 if rng.chance(0.5) => headings_text(self.trace, self.frame(rng)),
            5 => self.several(rng, 4, Self::sight),
            6..=8 => self.chain(rng),
            9 => self.chain_from_anywhere(rng),
            10 => self.now(rng),
            11 => self.places(rng),
            12 => self.nearest(rng),
            13 => self.order(rng),
            14 => self.faced(rng),
            _ => self.several(rng, 3, Self::distance),
        }
    }

    /// Many lookups of one kind.
    pub(super) fn of_one_kind(&self, rng: &mut Rng) -> String {
        let kinds = [
            Self::first,
            Self::last,
            Self::last,
            Self::every_sight,
            Self::view,
            Self::turn,
            Self::turn,
            Self::distance,
            Self::faced_one,
            Self::sight,
        ];
        let kind = kinds[rng.below(kinds.len())];
        let words = 40 + rng.below(40);
        super::grown(words, || kind(self, rng))
    }

    fn several(&self, rng: &mut Rng, most: usize, one: fn(&Self, &mut Rng) -> String) -> String {
        let count = 1 + rng.below(most);
        (0..count).map(|_| one(self, rng)).collect::<Vec<_>>().join(" ")
    }

    fn frame(&self, rng: &mut Rng) -> usize {
        rng.below(self.trace.frames.len())
    }

    /// A name, mostly of the room, now and then of something that is not there.
    fn name(&self, rng: &mut Rng) -> String {
        let other = rng.pick(&KINDS).map_or("", |kind| kind.name);
        match rng.pick(self.names) {
            Some(name) if !rng.chance(0.1) => name.clone(),
            _ => other.to_owned(),
        }
    }

    fn first(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        match self.trace.first_sight(&name) {
            Some((frame, _)) => first_text(&name, frame),
            None => format!("first {name}: none."),
        }
    }

    fn last(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        match self.trace.last_sight(&name) {
            Some((frame, bearing)) => {
                format!("last {name}: frame {frame} {}.", bearing_text(bearing))
            }
            None => format!("last {name}: none."),
        }
    }

    /// `all lamp: frame 1 left 30, frame 2 right 30.`
    fn every_sight(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        let sights: Vec<_> = (0..self.trace.frames.len())
            .filter_map(|frame| {
                let bearing = self.trace.bearing_in(frame, &name)?;
                Some(format!("frame {frame} {}", bearing_text(bearing)))
            })
            .collect();
        format!("all {name}: {}.", list_or_none(&sights))
    }

    /// `view 3: lamp left 30, bed ahead.`
    fn view(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        let told: Vec<_> = self.trace.frames[frame]
            .seen
            .iter()
            .map(|seen| format!("{} {}", seen.name, bearing_text(seen.bearing_deg)))
            .collect();
        format!("view {frame}: {}.", list_or_none(&told))
    }

    /// `lamp left 30 in frame 3.`
    fn sight(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        match rng.pick(&self.trace.frames[frame].seen) {
            Some(seen) => {
                format!("{} {} in frame {frame}.", seen.name, bearing_text(seen.bearing_deg))
            }
            None => format!("none in frame {frame}."),
        }
    }

    /// `faced lamp: frame 3.`
    fn faced_one(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        faced_text(&name, self.trace.last_faced(&name))
    }

    /// `frame 3: rotate left 60.`
    fn turn(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        let action = self.trace.frames[frame].action.as_ref();
        format!("frame {frame}: {}.", action.map_or("start", |action| &action.text))
    }

    /// `distance lamp: frame 3, 2 m.`
    fn distance(&self, rng: &mut Rng) -> String {
        let name = self.name(rng);
        let sight = self.trace.frames.iter().enumerate().find_map(|(frame, then)| {
            let seen = then.seen.iter().find(|seen| seen.name == name)?;
            Some((frame, seen.distance_m))
        });
        match sight {
            Some((frame, metres)) => format!("distance {name}: frame {frame}, {metres} m."),
            None => format!("distance {name}: none."),
        }
    }

    /// An object carried to the end, and on which side it is then.
    fn chain(&self, rng: &mut Rng) -> String {
        let told = rng.pick(&self.seen).and_then(|name| carried(name, self.trace));
        let Some((mut statements, bearing)) = told else { return self.last(rng) };
        if rng.chance(0.7) {
            statements.push(format!("so {}.", Quadrant::of(f64::from(bearing)).place()));
        }
        statements.join(" ")
    }

    /// An object carried from one of its sights through some of the later frames.
    fn chain_from_anywhere(&self, rng: &mut Rng) -> String {
        let frame = self.frame(rng);
        let Some(seen) = rng.pick(&self.trace.frames[frame].seen) else { return self.view(rng) };
        let mut bearing = seen.bearing_deg;
        let mut statements =
            vec![format!("{}: frame {frame} {}.", seen.name, bearing_text(bearing))];
        let last = frame + rng.below(self.trace.frames.len() - frame);
        for index in frame + 1..=last {
            let Some(action) = &self.trace.frames[index].action else { break };
            bearing = wrap_whole(bearing - action.turn_deg);
            statements.push(format!("frame {index} {}: {}.", action.text, bearing_text(bearing)));
        }
        statements.join(" ")
    }

    /// Some objects carried to the end, then which are ahead, left, right and behind.
    fn now(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(2);
        let mut statements = Vec::new();
        let mut now: Vec<(Quadrant, String)> = Vec::new();
        for name in rng.sample(&self.seen, count) {
            let Some((mut told, bearing)) = carried(&name, self.trace) else { continue };
            statements.append(&mut told);
            now.push((Quadrant::of(f64::from(bearing)), name));
        }
        for quadrant in Quadrant::ALL {
            let there: Vec<_> = now
                .iter()
                .filter(|(at, _)| *at == quadrant)
                .map(|(_, name)| name.clone())
                .collect();
            statements.push(format!("now {}: {}.", quadrant.place(), list_or_none(&there)));
        }
        statements.join(" ")
    }

    /// The headings, then places of some objects, then the turn from one to another.
    fn places(&self, rng: &mut Rng) -> String {
        let count = 1 + rng.below(3);
        let (mut statements, placed) = self.placed(rng, count);
        if let [.., (a, from), (b, to)] = placed.as_slice() {
            statements.push(format!("{a} to {b}: {}.", bearing_text(wrap_whole(to - from))));
        }
        statements.join(" ")
    }

    fn placed(&self, rng: &mut Rng, count: usize) -> (Vec<String>, Vec<(String, i32)>) {
        let mut statements = vec![headings_text(self.trace, self.trace.frames.len() - 1)];
        let mut places = Vec::new();
        for name in rng.sample(&self.seen, count) {
            let Some((text, place)) = placed(&name, self.trace) else { continue };
            statements.push(format!("{text}."));
            places.push((name, place));
        }
        (statements, places)
    }

    /// Which of some objects is nearest to a direction.
    fn nearest(&self, rng: &mut Rng) -> String {
        let target = wrap_whole(10 * rng.below(36) as i32);
        let count = 2 + rng.below(3);
        let mut statements = vec![headings_text(self.trace, self.trace.frames.len() - 1)];
        statements.push(format!("target {}.", bearing_text(target)));
        let mut angles = Vec::new();
        for name in rng.sample(&self.seen, count) {
            let Some((text, place)) = placed(&name, self.trace) else { continue };
            let off = wrap_whole(place - target).abs();
            statements.push(format!("{text}, off {off}."));
            angles.push((off, name));
        }
        angles.sort_unstable();
        if let [(least, name), rest @ ..] = angles.as_slice()
            && rest.first().is_none_or(|(next, _)| next > least)
        {
            statements.push(format!("so {name}."));
        }
        statements.join(" ")
    }

    /// First frames of some objects, and their order.
    fn order(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(3);
        let mut firsts: Vec<(usize, String)> = Vec::new();
        for name in rng.sample(&self.seen, self.seen.len()) {
            let Some((frame, _)) = self.trace.first_sight(&name) else { continue };
            if firsts.len() < count && firsts.iter().all(|(other, _)| *other != frame) {
                firsts.push((frame, name));
            }
        }
        let mut statements: Vec<_> =
            firsts.iter().map(|(frame, name)| first_text(name, *frame)).collect();
        firsts.sort_unstable();
        let ordered: Vec<_> = firsts.into_iter().map(|(_, name)| name).collect();
        statements.push(format!("so {}.", list_or_none(&ordered)));
        statements.join(" ")
    }

    /// When some objects were ahead last, and which of them was so at the latest.
    fn faced(&self, rng: &mut Rng) -> String {
        let count = 2 + rng.below(3);
        let names = rng.sample(self.names, count);
        let frames: Vec<_> = names.iter().map(|name| self.trace.last_faced(name)).collect();
        let mut statements: Vec<_> =
            names.iter().zip(&frames).map(|(name, frame)| faced_text(name, *frame)).collect();
        let faced =
            || frames.iter().zip(&names).filter_map(|(frame, name)| Some(((*frame)?, name)));
        if let Some((latest, name)) = faced().max()
            && faced().filter(|(frame, _)| *frame == latest).count() == 1
        {
            statements.push(format!("so {name}."));
        }
        statements.join(" ")
    }
}

fn list_or_none(items: &[String]) -> String {
    if items.is_empty() { "none".to_owned() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::captions::captions_at;
    use crate::geometry::bearing_deg;
    use crate::world::{draw, keyframes_by_pose, names};

    #[test]
    fn statements_about_now_are_true_of_rooms_without_moves() {
        let mut checked = 0;
        for seed in 0..100 {
            let scene = draw(&[seed]);
            let end = scene.camera.last().unwrap();
            if end.position_m != scene.camera[0].position_m {
                continue;
            }
            let captions = captions_at(&scene, &keyframes_by_pose(&scene));
            let trace = Trace::from_captions(&captions).unwrap();
            let text = Statements::new(&names(&scene), &trace).now(&mut Rng::new(&[seed]));
            for object in &scene.objects {
                let bearing = bearing_deg(end, object);
                if (bearing.abs() - 45.0).abs().min((bearing.abs() - 135.0).abs()) < 6.0 {
                    continue;
                }
                for quadrant in Quadrant::ALL {
                    let told = text.split(&format!("now {}: ", quadrant.place())).nth(1).unwrap();
                    let told = told.split('.').next().unwrap();
                    if told.split(", ").any(|name| name == object.name) {
                        assert_eq!(quadrant, Quadrant::of(bearing), "{text}");
                        checked += 1;
                    }
                }
            }
        }
        assert!(checked > 30, "{checked}");
    }

    #[test]
    fn every_kind_of_statement_comes_up() {
        let scene = draw(&[1]);
        let captions = captions_at(&scene, &keyframes_by_pose(&scene));
        let trace = Trace::from_captions(&captions).unwrap();
        let names = names(&scene);
        let statements = Statements::new(&names, &trace);
        let mut rng = Rng::new(&[2]);
        let text: Vec<_> = (0..400).map(|_| statements.any(&mut rng)).collect();
        let text = text.join("\n");
        for beginning in
            ["first ", "last ", "all ", "view ", "frame ", "heading: ", "faced ", "distance "]
        {
            assert!(text.lines().any(|line| line.starts_with(beginning)), "{beginning}");
        }
    }
}
