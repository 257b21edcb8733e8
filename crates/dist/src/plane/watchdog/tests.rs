use super::*;
use crate::operation::Operation;
use crate::watch::PartSigns;

const SECOND: Duration = Duration::from_secs(1);

/// A watchdog over `ranks` with a deadline of ten seconds, and a clock.
struct Scene {
    watchdog: Watchdog,
    now: Instant,
    signs: Vec<Signs>,
}

impl Scene {
    fn new(ranks: usize) -> Self {
        let now = Instant::now();
        let hosts = (0..ranks).map(|rank| format!("host{rank}")).collect();
        let watchdog = Watchdog::new(hosts, 10 * SECOND, 3 * SECOND, now);
        let signs = Signs { phase: "rollout".into(), ..Signs::default() };
        Self { watchdog, now, signs: vec![signs; ranks] }
    }

    fn enter(&mut self, rank: usize, sequence: u64) {
        let operation = Operation::Barrier;
        self.signs[rank].entered = Some(Call { sequence, operation, length: 0, root: 0 });
    }

    /// `seconds` pass, in each of which all ranks but the `silent` tell their signs.
    fn pass(
        &mut self,
        seconds: u64,
        silent: &[usize],
        mut each: impl FnMut(&mut Signs),
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for _ in 0..seconds {
            self.now += SECOND;
            for rank in 0..self.signs.len() {
                if !silent.contains(&rank) {
                    each(&mut self.signs[rank]);
                    self.watchdog.hear(rank, self.signs[rank].clone(), self.now);
                }
            }
            notices.extend(self.watchdog.look(self.now));
        }
        notices
    }
}

fn still(_: &mut Signs) {}

fn verdict(notices: &[Notice]) -> &Verdict {
    match notices.last() {
        Some(Notice::Lost(verdict)) => verdict,
        other => panic!("no verdict but {other:?}"),
    }
}

#[test]
fn ranks_that_are_in_no_call_are_left_alone() {
    assert_eq!(Scene::new(2).pass(100, &[], still), []);
}

#[test]
fn a_rank_that_is_silent_for_the_deadline_is_lost() {
    let mut scene = Scene::new(3);
    assert_eq!(scene.pass(9, &[1], still), []);
    let notices = scene.pass(1, &[1], still);
    let verdict = verdict(&notices);
    assert_eq!((verdict.rank, &verdict.why, verdict.waited), (1, &Why::Silent, 10 * SECOND));
}

#[test]
fn a_rank_that_is_awaited_and_makes_no_progress_hangs() {
    let mut scene = Scene::new(3);
    for (rank, sequence) in [(0, 5), (1, 4), (2, 5)] {
        scene.enter(rank, sequence);
        scene.signs[rank].finished = 4;
    }
    let notices = scene.pass(12, &[], still);
    let verdict = verdict(&notices);
    assert_eq!((verdict.rank, verdict.host.as_str()), (1, "host1"));
    let Why::Hung { awaited_in } = verdict.why else { panic!("{verdict}") };
    assert_eq!(awaited_in.sequence, 5);
    assert_eq!(verdict.phase, "rollout");
}

#[test]
fn a_rank_that_beats_is_a_straggler_and_no_more() {
    let mut scene = Scene::new(2);
    scene.enter(0, 1);
    let notices = scene.pass(30, &[], |signs| signs.beats += 1);
    let waits: Vec<_> = notices
        .iter()
        .map(|notice| match notice {
            Notice::Straggler { rank: 1, phase, waited } if phase == "rollout" => waited.as_secs(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(waits, [3, 6, 9, 12, 15, 18, 21, 24, 27]);
}

#[test]
fn a_rank_that_stops_to_beat_hangs_after_the_deadline() {
    let mut scene = Scene::new(2);
    scene.enter(0, 1);
    scene.pass(30, &[], |signs| signs.beats += 1);
    let after = scene.pass(9, &[], still);
    assert!(after.iter().all(|notice| matches!(notice, Notice::Straggler { .. })), "{after:?}");
    let notices = scene.pass(1, &[], still);
    assert_eq!(verdict(&notices).rank, 1);
}

#[test]
fn a_call_that_all_are_in_and_whose_data_do_not_move_stalls() {
    let mut scene = Scene::new(3);
    for rank in 0..3 {
        scene.enter(rank, 1);
        scene.signs[rank].moved = 7;
    }
    scene.signs[2].moved = 3;
    let notices = scene.pass(11, &[], still);
    let verdict = verdict(&notices);
    assert_eq!((verdict.rank, &verdict.why), (2, &Why::Stalled));
}

#[test]
fn a_call_whose_data_move_may_take_long() {
    let mut scene = Scene::new(2);
    scene.enter(0, 1);
    scene.enter(1, 1);
    assert_eq!(scene.pass(100, &[], |signs| signs.moved += 1), []);
}

#[test]
fn nobody_is_blamed_for_the_time_in_which_the_watchdog_itself_stood_still() {
    let mut scene = Scene::new(2);
    scene.enter(0, 1);
    scene.pass(5, &[], still);
    scene.now += 1000 * SECOND;
    let notices = scene.watchdog.look(scene.now);
    assert!(notices.iter().all(|notice| !matches!(notice, Notice::Lost(_))), "{notices:?}");
}

#[test]
fn a_rank_that_is_done_may_be_silent() {
    let mut scene = Scene::new(2);
    scene.watchdog.done(1);
    assert_eq!(scene.pass(30, &[1], still), []);
    scene.watchdog.done(0);
    assert!(scene.watchdog.all_done());
}

/// Four ranks in two parts, each of which has ended so many calls and is in the next one.
fn in_parts(calls: [u64; 4]) -> Scene {
    let mut scene = Scene::new(4);
    for (rank, calls) in calls.into_iter().enumerate() {
        let call = Call { sequence: calls + 1, operation: Operation::Barrier, length: 0, root: 0 };
        let (first, entered) = (rank / 2 * 2, Some(call));
        scene.signs[rank].part = Some(PartSigns { first, entered, finished: calls });
    }
    scene
}

#[test]
fn who_is_awaited_in_its_part_hangs_whatever_the_other_part_does() {
    let mut scene = in_parts([5, 5, 9, 8]);
    let mut turn = 0;
    // The first part gets on, call after call.
    let notices = scene.pass(11, &[], |signs| {
        turn += 1;
        if let Some(part) = signs.part.as_mut().filter(|part| part.first == 0) {
            part.finished += 1;
            part.entered = part.entered.map(|call| Call { sequence: call.sequence + 1, ..call });
        }
    });
    assert!(turn > 0);
    let verdict = verdict(&notices);
    assert_eq!(verdict.rank, 3);
    assert!(matches!(verdict.why, Why::Hung { awaited_in } if awaited_in.sequence == 10));
    assert_eq!(verdict.operation.unwrap().sequence, 9);
}

#[test]
fn parts_that_are_not_equally_far_wait_for_nobody() {
    let mut scene = in_parts([2, 2, 90, 90]);
    assert_eq!(scene.pass(100, &[], |signs| signs.moved += 1), []);
}

#[test]
fn a_part_whose_data_do_not_move_stalls() {
    let mut scene = in_parts([5, 5, 9, 9]);
    scene.signs[1].moved = 7;
    let notices = scene.pass(11, &[], |signs| {
        // The second part's data do.
        if signs.part.is_some_and(|part| part.first == 2) {
            signs.moved += 1;
        }
    });
    let verdict = verdict(&notices);
    assert_eq!((verdict.rank, &verdict.why), (0, &Why::Stalled));
}
