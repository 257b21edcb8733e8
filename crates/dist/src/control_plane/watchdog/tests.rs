use super::*;
use crate::operation::Operation;
use crate::rank_state::SubgroupStatus;

const SECOND: Duration = Duration::from_secs(1);

/// A watchdog over `ranks` with a deadline of ten seconds, and a simulated clock.
struct Simulation {
    watchdog: Watchdog,
    now: Instant,
    status: Vec<RankStatus>,
}

impl Simulation {
    fn new(ranks: usize) -> Self {
        let now = Instant::now();
        let hosts = (0..ranks).map(|rank| format!("host{rank}")).collect();
        let watchdog = Watchdog::new(hosts, 10 * SECOND, 3 * SECOND, now);
        let status = RankStatus { phase: "rollout".into(), ..RankStatus::default() };
        Self { watchdog, now, status: vec![status; ranks] }
    }

    fn enter(&mut self, rank: usize, sequence: u64) {
        let operation = Operation::Barrier;
        self.status[rank].entered = Some(Call { sequence, operation, length: 0, root: 0 });
    }

    /// Advances the clock by `seconds`; in each, all ranks but the `silent` send a heartbeat.
    fn advance(
        &mut self,
        seconds: u64,
        silent: &[usize],
        mut each: impl FnMut(&mut RankStatus),
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for _ in 0..seconds {
            self.now += SECOND;
            for rank in 0..self.status.len() {
                if !silent.contains(&rank) {
                    each(&mut self.status[rank]);
                    self.watchdog.record(rank, self.status[rank].clone(), self.now);
                }
            }
            notices.extend(self.watchdog.check(self.now));
        }
        notices
    }
}

fn idle(_: &mut RankStatus) {}

fn failure(notices: &[Notice]) -> &FailureReport {
    match notices.last() {
        Some(Notice::Failure(report)) => report,
        other => panic!("no failure but {other:?}"),
    }
}

#[test]
fn ranks_outside_of_calls_are_never_hung() {
    assert_eq!(Simulation::new(2).advance(100, &[], idle), []);
}

#[test]
fn a_rank_without_heartbeats_fails_after_the_deadline() {
    let mut simulation = Simulation::new(3);
    assert_eq!(simulation.advance(9, &[1], idle), []);
    let notices = simulation.advance(1, &[1], idle);
    let report = failure(&notices);
    let expected = (1, &FailureCause::HeartbeatTimeout, 10 * SECOND);
    assert_eq!((report.rank, &report.cause, report.waited), expected);
}

#[test]
fn a_rank_that_is_awaited_and_makes_no_progress_hangs() {
    let mut simulation = Simulation::new(3);
    for (rank, sequence) in [(0, 5), (1, 4), (2, 5)] {
        simulation.enter(rank, sequence);
        simulation.status[rank].finished = 4;
    }
    let notices = simulation.advance(12, &[], idle);
    let report = failure(&notices);
    assert_eq!((report.rank, report.host.as_str()), (1, "host1"));
    let FailureCause::Hung { awaited_in } = report.cause else { panic!("{report}") };
    assert_eq!(awaited_in.sequence, 5);
    assert_eq!(report.phase, "rollout");
}

#[test]
fn an_awaited_rank_that_makes_progress_is_only_a_straggler() {
    let mut simulation = Simulation::new(2);
    simulation.enter(0, 1);
    let notices = simulation.advance(30, &[], |status| status.progress += 1);
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
fn a_rank_whose_progress_stops_hangs_after_the_deadline() {
    let mut simulation = Simulation::new(2);
    simulation.enter(0, 1);
    simulation.advance(30, &[], |status| status.progress += 1);
    let after = simulation.advance(9, &[], idle);
    assert!(after.iter().all(|notice| matches!(notice, Notice::Straggler { .. })), "{after:?}");
    let notices = simulation.advance(1, &[], idle);
    assert_eq!(failure(&notices).rank, 1);
}

#[test]
fn a_call_entered_by_all_whose_data_does_not_move_stalls() {
    let mut simulation = Simulation::new(3);
    for rank in 0..3 {
        simulation.enter(rank, 1);
        simulation.status[rank].transfers = 7;
    }
    simulation.status[2].transfers = 3;
    let notices = simulation.advance(11, &[], idle);
    let report = failure(&notices);
    assert_eq!((report.rank, &report.cause), (2, &FailureCause::Stalled));
}

#[test]
fn a_call_whose_data_moves_may_take_long() {
    let mut simulation = Simulation::new(2);
    simulation.enter(0, 1);
    simulation.enter(1, 1);
    assert_eq!(simulation.advance(100, &[], |status| status.transfers += 1), []);
}

#[test]
fn time_in_which_the_watchdog_was_suspended_does_not_count() {
    let mut simulation = Simulation::new(2);
    simulation.enter(0, 1);
    simulation.advance(5, &[], idle);
    simulation.now += 1000 * SECOND;
    let notices = simulation.watchdog.check(simulation.now);
    assert!(notices.iter().all(|notice| !matches!(notice, Notice::Failure(_))), "{notices:?}");
}

#[test]
fn a_rank_that_is_done_may_be_silent() {
    let mut simulation = Simulation::new(2);
    simulation.watchdog.mark_done(1);
    assert_eq!(simulation.advance(30, &[1], idle), []);
    simulation.watchdog.mark_done(0);
    assert!(simulation.watchdog.all_done());
}

/// Four ranks in two subgroups; each rank has finished `calls` calls and entered the next.
fn in_subgroups(calls: [u64; 4]) -> Simulation {
    let mut simulation = Simulation::new(4);
    for (rank, calls) in calls.into_iter().enumerate() {
        let call = Call { sequence: calls + 1, operation: Operation::Barrier, length: 0, root: 0 };
        let (first, entered) = (rank / 2 * 2, Some(call));
        simulation.status[rank].subgroup = Some(SubgroupStatus { first, entered, finished: calls });
    }
    simulation
}

#[test]
fn a_rank_hangs_in_its_subgroup_although_the_other_subgroup_progresses() {
    let mut simulation = in_subgroups([5, 5, 9, 8]);
    let notices = simulation.advance(11, &[], |status| {
        // The first subgroup finishes call after call.
        if let Some(subgroup) = status.subgroup.as_mut().filter(|subgroup| subgroup.first == 0) {
            subgroup.finished += 1;
            let next = |call: Call| Call { sequence: call.sequence + 1, ..call };
            subgroup.entered = subgroup.entered.map(next);
        }
    });
    let report = failure(&notices);
    assert_eq!(report.rank, 3);
    assert!(matches!(report.cause, FailureCause::Hung { awaited_in } if awaited_in.sequence == 10));
    assert_eq!(report.operation.unwrap().sequence, 9);
}

#[test]
fn subgroups_do_not_wait_for_each_other() {
    let mut simulation = in_subgroups([2, 2, 90, 90]);
    assert_eq!(simulation.advance(100, &[], |status| status.transfers += 1), []);
}

#[test]
fn a_subgroup_whose_data_does_not_move_stalls() {
    let mut simulation = in_subgroups([5, 5, 9, 9]);
    simulation.status[1].transfers = 7;
    let notices = simulation.advance(11, &[], |status| {
        // The second subgroup's data moves.
        if status.subgroup.is_some_and(|subgroup| subgroup.first == 2) {
            status.transfers += 1;
        }
    });
    let report = failure(&notices);
    assert_eq!((report.rank, &report.cause), (0, &FailureCause::Stalled));
}
