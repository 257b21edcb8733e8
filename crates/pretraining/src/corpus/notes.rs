//! Practice on notes: sightings that are made up, each followed by one step from it.
//!
//! A note `lamp right 50 in frame 2.` is of no use to any question, as its bearing and frame are random. The step after it
//! reads it, so that the model learns to take up what was stated last. Before an order and before the letter of an
//! option it is worded as a sighting in a rationale, `lamp right 50, frame 2.`, as its frame is else not found there.

use embodied_r_random::Rng;
use embodied_r_sim::CaptionTrace;
use embodied_r_sim::statement::{Sighting, Statement};
use embodied_r_sim::wording::{OBJECT_NAMES, Octant, bearing_text, named_in_step, wrap_whole};

use super::drills::{angle, octant, visible_bearing};

/// Number of different frames of notes.
const FRAMES: usize = 10;

/// A step from a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoteStep {
    /// `lamp left 30 in frame 2. next 3: left 30, rotate left 60: right 30.`: what the bearing becomes by the rotation before
    /// the next frame of the video, or `lamp left 30 in frame 7. next none: left 30.` Half of the notes have frame and
    /// bearing where a step before has them: `next 2: right 80, lamp: left 30. next 3: left 30, rotate left 60: right 30.`
    Next,
    /// `lamp left 30 in frame 2. left 30 is ahead left.`
    Octant,
    /// `sofa ahead, frame 4. lamp left 30, frame 2. left 90 is left. order sofa 4, lamp 2: lamp, sofa.`: the order of
    /// several notes. The octant between leads nowhere; it separates the order from a sighting. Notes in one of three
    /// [`Wording`]s have none: `sofa ahead in frame 4. lamp left 30 in frame 2. order sofa 4, lamp 2: lamp, sofa.` Of half of the orders, all notes but the last are one that is worded as an order before, with anything as its result:
    /// `order sofa 4: right 20. lamp left 30 in frame 2. order sofa 4, lamp 2: lamp, sofa.`
    Order,
}

/// How many objects there are after a step. Questions ask for three.
const ORDERED: [usize; 6] = [1, 2, 2, 3, 3, 4];

/// Where a note has its frame. An order after notes of any wording reads the number that belongs to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wording {
    /// `lamp left 30, frame 2.`, as in the sightings of rationales.
    Sighting,
    /// `lamp left 30 in frame 2.`
    In,
    /// `lamp in frame 2, left 30.`
    Between,
    /// `lamp left 30 at frame 2.`
    At,
}

impl Wording {
    const ALL: [Self; 4] = [Self::Sighting, Self::In, Self::Between, Self::At];

    fn note(self, name: &str, bearing_deg: i32, frame: usize) -> String {
        let bearing = bearing_text(bearing_deg);
        match self {
            Self::Sighting => format!("{name} {}.", Sighting { bearing_deg, frame }),
            Self::In => format!("{name} {bearing} in frame {frame}."),
            Self::Between => format!("{name} in frame {frame}, {bearing}."),
            Self::At => format!("{name} {bearing} at frame {frame}."),
        }
    }
}

fn name(rng: &mut Rng) -> &'static str {
    rng.pick(&OBJECT_NAMES).copied().unwrap_or_default()
}

/// One or several notes, and a step from them; `None` if it needs a video and there is none.
pub(super) fn with_step(
    step: NoteStep,
    trace: Option<&CaptionTrace>,
    rng: &mut Rng,
) -> Option<String> {
    let (notes, statement) = match step {
        NoteStep::Next => next(trace?, rng),
        NoteStep::Octant => {
            let bearing_deg = angle(rng);
            let octant = Octant::of(f64::from(bearing_deg));
            let note = Wording::In.note(name(rng), bearing_deg, rng.below(FRAMES));
            (note, Statement::Octant { bearing_deg, octant })
        }
        NoteStep::Order => order(rng),
    };
    Some(format!("{notes} {statement}."))
}

/// A frame; often the last one or one before a move without rotation, as both are rare.
fn from_frame(trace: &CaptionTrace, rng: &mut Rng) -> usize {
    let last = trace.frames.len() - 1;
    if rng.chance(0.2) {
        return last;
    }
    let moves: Vec<usize> = (0..last)
        .filter(|at| {
            trace
                .frames
                .get(at + 1)
                .and_then(|f| f.action.as_ref())
                .is_some_and(|a| a.turn_deg == 0)
        })
        .collect();
    let moved = rng.chance(0.2).then(|| rng.pick(&moves).copied()).flatten();
    moved.unwrap_or_else(|| rng.below(last.max(1)))
}

fn next(trace: &CaptionTrace, rng: &mut Rng) -> (String, Statement) {
    let at = from_frame(trace, rng);
    let (frame, before_deg) = (at + 1, bearing(rng));
    let action = trace.frames.get(frame).and_then(|shown| shown.action.as_ref());
    let statement = match action {
        Some(action) => Statement::Next {
            frame,
            before_deg,
            action: action.rotation().to_owned(),
            after_deg: wrap_whole(before_deg - action.turn_deg),
        },
        None => Statement::End { bearing_deg: before_deg },
    };
    (frame_note(before_deg, at, rng), statement)
}

/// A note that the next frame follows on, in either of its two wordings.
fn frame_note(bearing_deg: i32, frame: usize, rng: &mut Rng) -> String {
    let name = name(rng);
    match rng.chance(0.5) {
        true => Wording::In.note(name, bearing_deg, frame),
        false => {
            let [other, bearing] = [angle(rng), bearing_deg].map(bearing_text);
            format!("next {frame}: {other}, {name}: {bearing}.")
        }
    }
}

fn order(rng: &mut Rng) -> (String, Statement) {
    let count = rng.pick(&ORDERED).copied().unwrap_or(1);
    let names = rng.sample(&OBJECT_NAMES, count).into_iter().map(str::to_owned);
    let firsts: Vec<(String, usize)> = names.zip(frames(count, rng)).collect();
    let wording = rng.pick(&Wording::ALL).copied().unwrap_or(Wording::Sighting);
    let word =
        |(name, frame): &(String, usize), rng: &mut Rng| wording.note(name, bearing(rng), *frame);
    let mut notes = match firsts.split_last() {
        Some((last, before)) if !before.is_empty() && rng.chance(0.5) => {
            let before: Vec<String> =
                before.iter().map(|(name, frame)| format!("{name} {frame}")).collect();
            let result = bearing_text(angle(rng));
            vec![format!("order {}: {result}.", before.join(", ")), word(last, rng)]
        }
        _ => firsts.iter().map(|first| word(first, rng)).collect(),
    };
    if wording == Wording::Sighting {
        notes.push(octant(rng));
    }
    (notes.join(" "), Statement::order(firsts))
}

/// The bearing of a note: half the time one within the field of view, as those of sightings are.
fn bearing(rng: &mut Rng) -> i32 {
    match rng.chance(0.5) {
        true => visible_bearing(rng),
        false => angle(rng),
    }
}

/// Different random frames.
fn frames(count: usize, rng: &mut Rng) -> Vec<usize> {
    rng.sample(&(0..FRAMES).collect::<Vec<_>>(), count)
}

/// A made-up statement from which the option `content` follows: an order, a note about its object, or its side.
pub(super) fn of_option(content: &str, rng: &mut Rng) -> String {
    let side = |text: fn(Octant) -> &'static str| {
        Octant::ALL.into_iter().find(|octant| text(*octant) == content)
    };
    if let Some(octant) = side(Octant::direction).or(side(Octant::action)) {
        return format!("{} is {}.", name(rng), octant.direction());
    }
    if content.contains(", ") {
        let names: Vec<String> = content.split(", ").map(str::to_owned).collect();
        let mut at = frames(names.len(), rng);
        at.sort_unstable();
        let by_frame: Vec<(String, usize)> = names.into_iter().zip(at).collect();
        let order = Statement::order(rng.sample(&by_frame, by_frame.len()));
        // Octants that lead nowhere separate the order from a sighting, and from the option.
        return format!("{} {order}. {}", octant(rng), octant(rng));
    }
    let name = named_in_step(content).unwrap_or(content);
    Wording::Sighting.note(name, bearing(rng), rng.below(FRAMES))
}

#[cfg(test)]
mod tests {
    use embodied_r_data::prompts::FrameText;

    use super::*;

    fn trace() -> CaptionTrace {
        let frame = |action: Option<&str>| FrameText {
            action: action.map(str::to_owned),
            view: "bed left 40, 2 m".into(),
        };
        let frames = [frame(None), frame(Some("rotate left 60 and move forward 1 m"))];
        CaptionTrace::from_captions(&frames).unwrap()
    }

    /// The notes and the step after them.
    fn drawn(step: NoteStep) -> Vec<(String, Statement)> {
        let mut rng = Rng::new(&[1]);
        let lines = (0..300).map(|_| with_step(step, Some(&trace()), &mut rng).unwrap());
        let split = lines.map(|line| {
            let (notes, step) = line.trim_end_matches('.').rsplit_once(". ").unwrap();
            (notes.to_owned(), Statement::parse(step).unwrap())
        });
        split.collect()
    }

    #[test]
    fn the_next_frame_changes_the_bearing_of_the_note() {
        let (mut ends, mut as_steps) = (0, 0);
        for (note, step) in drawn(NoteStep::Next) {
            let as_step = note.starts_with("next ");
            as_steps += usize::from(as_step);
            let before = match step {
                Statement::Next { frame, before_deg, action, after_deg } => {
                    assert_eq!((frame, action.as_str()), (1, "rotate left 60"));
                    assert_eq!(after_deg, wrap_whole(before_deg - 60));
                    before_deg
                }
                Statement::End { bearing_deg } => {
                    ends += 1;
                    assert!(note.ends_with("frame 1") || note.starts_with("next 1: "), "{note}");
                    bearing_deg
                }
                other => panic!("{other}"),
            };
            let bearing = bearing_text(before);
            match as_step {
                true => assert!(note.ends_with(&format!(": {bearing}")), "{note}"),
                false => assert!(note.contains(&format!(" {bearing} in frame")), "{note}"),
            }
        }
        assert!((30..150).contains(&ends), "{ends}");
        assert!((100..200).contains(&as_steps), "{as_steps}");
        assert_eq!(with_step(NoteStep::Next, None, &mut Rng::new(&[1])), None);
    }

    #[test]
    fn an_octant_is_that_of_the_note() {
        for (note, step) in drawn(NoteStep::Octant) {
            let Statement::Octant { bearing_deg, octant } = step else { panic!("{step}") };
            assert!(note.contains(&format!(" {} in frame", bearing_text(bearing_deg))));
            assert_eq!(octant, Octant::of(f64::from(bearing_deg)));
        }
    }

    #[test]
    fn an_order_is_that_of_the_frames() {
        let mut orders = 0;
        let mut of_wording = [0; Wording::ALL.len()];
        for (notes, step) in drawn(NoteStep::Order) {
            let Statement::Order { firsts, names } = step else { panic!("{step}") };
            let marks = [", frame ", " in frame ", " in frame ", " at frame "];
            let at = notes.contains(" at frame ");
            let wording = match notes.rsplit_once(" in frame ") {
                Some((_, after)) if after.contains(", ") => Wording::Between,
                Some(_) => Wording::In,
                None if at => Wording::At,
                None => Wording::Sighting,
            };
            of_wording[wording as usize] += 1;
            // An octant stands between sightings and their order alone.
            let notes = match notes.rsplit_once(". ") {
                Some((notes, between)) if wording == Wording::Sighting => {
                    assert!(matches!(Statement::parse(between), Some(Statement::Octant { .. })));
                    notes.to_owned()
                }
                _ => notes,
            };
            let noted = notes.split(". ").flat_map(|note| match note.strip_prefix("order ") {
                Some(order) => {
                    orders += 1;
                    let (noted, _) = order.split_once(": ").unwrap();
                    let of = |noted: &str| {
                        let (name, frame) = noted.split_once(' ').unwrap();
                        (name.to_owned(), frame.parse().unwrap())
                    };
                    noted.split(", ").map(of).collect()
                }
                None => {
                    let (name, frame) = note.split_once(marks[wording as usize]).unwrap();
                    let frame = frame.split(',').next().unwrap();
                    vec![(name.split(' ').next().unwrap().to_owned(), frame.parse().unwrap())]
                }
            });
            assert_eq!(firsts, noted.collect::<Vec<(String, usize)>>());
            let frame = |name: &String| firsts.iter().find(|first| first.0 == *name).unwrap().1;
            assert_eq!(names.len(), firsts.len());
            assert!(names.is_sorted_by_key(frame));
        }
        assert!((60..180).contains(&orders), "{orders}");
        assert!(of_wording.iter().all(|count| (50..100).contains(count)), "{of_wording:?}");
    }

    #[test]
    fn an_option_follows_from_its_statement() {
        let mut rng = Rng::new(&[2]);
        let ordered = of_option("bed, lamp, sofa", &mut rng);
        let order = ordered.split(". ").nth(1).unwrap();
        let Some(Statement::Order { firsts, names }) = Statement::parse(order) else {
            panic!("{order}")
        };
        assert_eq!(names, ["bed", "lamp", "sofa"]);
        assert_eq!(Statement::order(firsts.clone()), Statement::Order { firsts, names });
        for content in ["bed", "face the bed"] {
            let statement = of_option(content, &mut rng);
            assert!(statement.starts_with("bed ") && statement.contains(", frame "), "{statement}");
        }
        for octant in Octant::ALL {
            for content in [octant.direction(), octant.action()] {
                let statement = of_option(content, &mut rng);
                assert!(
                    statement.ends_with(&format!(" is {}.", octant.direction())),
                    "{statement}"
                );
            }
        }
    }
}
