//! The scenarios that ranks run under `mpirun`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use embodied_r_dist::{Communicator, CommunicatorOptions, Operation, RankInfo, Reduce, Result};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// The variable with the scenario that a rank runs.
pub(crate) const SCENARIO: &str = "EMBODIED_R_DIST_SCENARIO";

/// Runs `scenario` as one of its ranks.
pub(crate) fn run(scenario: &str) {
    let rank_info = RankInfo::from_env(|name| std::env::var(name).ok()).unwrap();
    ignore_sigterm();
    let ranks = join(scenario, &rank_info).unwrap_or_else(|error| {
        say(&format!("rank {} ends: {error}", rank_info.rank));
        // `mpirun` kills all ranks when the first one exits; give the others time to report.
        sleep(Duration::from_secs(1));
        std::process::exit(3)
    });
    match run_scenario(scenario, &ranks) {
        Ok(()) => say(&format!("scenario is done on rank {}", rank_info.rank)),
        Err(error) => {
            say(&format!("rank {} ends: {error}", rank_info.rank));
            ranks.acknowledge_failure();
            std::process::exit(3);
        }
    }
}

/// Writes a line with one call, so that lines of different ranks do not interleave.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// `mpirun` sends SIGTERM to the other ranks when one was killed; they must report the failure first.
fn ignore_sigterm() {
    let ignored = signal_hook::flag::register(
        signal_hook::consts::SIGTERM,
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    ignored.unwrap();
}

fn join(scenario: &str, rank_info: &RankInfo) -> Result<Communicator> {
    let mut options =
        CommunicatorOptions { deadline: Duration::from_secs(30), ..CommunicatorOptions::default() };
    match scenario {
        "stop" | "hang" | "endless" => options.deadline = Duration::from_secs(2),
        "settings" => {
            options.settings = BTreeMap::from([("seed".into(), rank_info.rank.to_string())]);
        }
        _ => {}
    }
    // For machines that cannot resolve each other's host names.
    options.address =
        std::env::var("EMBODIED_R_DIST_ADDRESS").ok().map(|text| text.parse().unwrap());
    Communicator::mpi(rank_info, &options)
}

fn run_scenario(scenario: &str, ranks: &Communicator) -> Result<()> {
    ranks.enter_phase("rollout");
    ranks.barrier()?;
    match scenario {
        "collectives" => collectives(ranks)?,
        "large" => large(ranks)?,
        "overlap" => overlap(ranks)?,
        "parts" => parts(ranks)?,
        "patience" => patience(ranks)?,
        "speed" => speed(ranks)?,
        "endless" => endless(ranks)?,
        "mismatch" => {
            let length = 10 + ranks.rank() % 2;
            ranks.all_reduce(vec![0.0; length], Reduce::Sum)?.wait()?;
        }
        "fail" => {
            ranks.enter_phase("checkpoint");
            if ranks.rank() == 1 {
                return Err(ranks.fail("no space left on device"));
            }
        }
        "abort" if ranks.rank() == 1 => ranks.abort(5),
        "abort-amidst" if ranks.rank() == 1 => {
            let pending = ranks.all_reduce(vec![0.0; 1000], Reduce::Sum)?;
            let error = ranks.fail("no");
            assert!(pending.wait().is_err());
            say(&format!("rank 1 ends: {error}"));
            ranks.abort(5)
        }
        "abort-amidst" => sleep(FOREVER),
        "kill" => signal_self(ranks, 1, "KILL"),
        "kill-0" => signal_self(ranks, 0, "KILL"),
        "kill-amidst" => kill_amidst(ranks)?,
        "stop" => signal_self(ranks, 1, "STOP"),
        "hang" if ranks.rank() == 1 => sleep(FOREVER),
        _ => {}
    }
    if !matches!(scenario, "collectives" | "large" | "overlap" | "parts" | "patience" | "speed") {
        // At least one rank never enters this.
        ranks.all_reduce(vec![0.0; 1000], Reduce::Sum)?.wait()?;
    }
    ranks.finish()
}

/// Rank `rank` sends itself a signal.
fn signal_self(ranks: &Communicator, rank: usize, signal: &str) {
    if ranks.rank() == rank {
        // Let its last status arrive first.
        sleep(Duration::from_millis(600));
        let pid = std::process::id().to_string();
        Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap();
        sleep(FOREVER);
    }
}

fn kill_amidst(ranks: &Communicator) -> Result<()> {
    let clone = ranks.clone();
    std::thread::spawn(move || signal_self(&clone, 1, "KILL"));
    endless(ranks)
}

/// All-reduces forever, for faults injected from outside such as a cut link.
fn endless(ranks: &Communicator) -> Result<()> {
    ranks.enter_phase("update");
    let mut values = vec![1.0; 4 << 20];
    loop {
        values = ranks.all_reduce(values, Reduce::Max)?.wait()?;
    }
}

/// Values of a rank, of all magnitudes, so that sums depend on the order of accumulation.
fn values(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|at| ((at % 9973 * 31 + rank * 17 + 3) as f32).sin() * 1e3).collect()
}

fn sums(world_size: usize, length: usize) -> Vec<f32> {
    let mut sums = values(0, length);
    for rank in 1..world_size {
        sums.iter_mut().zip(values(rank, length)).for_each(|(sum, number)| *sum += number);
    }
    sums
}

fn collectives(ranks: &Communicator) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    for length in [0, 1, 2, 3, 1000, 4097, 100_003] {
        let sum = ranks.all_reduce(values(me, length), Reduce::Sum)?;
        let max = ranks.all_reduce(values(me, length), Reduce::Max)?;
        let part = ranks.reduce_scatter(values(me, length * world))?;
        let all = ranks.all_gather(values(me, length))?;
        let broadcast = ranks.broadcast(values(me, length), world - 1)?;
        assert_eq!(sum.wait()?, sums(world, length));
        let greatest = (0..length)
            .map(|at| (0..world).map(|rank| values(rank, length)[at]).fold(f32::MIN, f32::max));
        if length <= 1000 {
            assert_eq!(max.wait()?, greatest.collect::<Vec<_>>());
        }
        assert_eq!(part.wait()?, sums(world, length * world)[me * length..][..length]);
        let expected: Vec<_> = (0..world).flat_map(|rank| values(rank, length)).collect();
        assert_eq!(all.wait()?, expected);
        assert_eq!(broadcast.wait()?, values(world - 1, length));
        tensors(ranks, length)?;
        ranks.barrier()?;
    }
    small_values(ranks)
}

fn tensors(ranks: &Communicator, length: usize) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    let flat = |length| Tensor::from_vec(values(me, length), length, &Device::Cpu).unwrap();
    let sum = ranks.all_reduce_tensor(flat(length))?;
    let part = ranks.reduce_scatter_tensor(flat(length * world))?;
    let all = ranks.all_gather_tensor(flat(length))?;
    let read = |tensor: Tensor| tensor.to_vec1::<f32>().unwrap();
    assert_eq!(read(sum.wait()?), sums(world, length));
    assert_eq!(read(part.wait()?), sums(world, length * world)[me * length..][..length]);
    let expected: Vec<_> = (0..world).flat_map(|rank| values(rank, length)).collect();
    assert_eq!(read(all.wait()?), expected);
    Ok(())
}

/// Two subgroups, one of which makes many more calls.
fn parts(ranks: &Communicator) -> Result<()> {
    let part = ranks.split(2)?;
    let first = ranks.rank() / 2 * 2;
    for length in [0, 1, 5000, 100_003] {
        for _ in 0..1 + 10 * first {
            let sum = part.all_reduce(values(ranks.rank(), length), Reduce::Sum)?.wait()?;
            let pair = values(first, length).into_iter().zip(values(first + 1, length));
            assert_eq!(sum, pair.map(|(a, b)| a + b).collect::<Vec<_>>());
        }
        let broadcast = part.broadcast_bytes(vec![ranks.rank() as u8; 9], 1)?.wait()?;
        assert_eq!(broadcast, vec![first as u8 + 1; 9]);
        let all = ranks.all_gather(values(ranks.rank(), 3))?.wait()?;
        let expected: Vec<_> = (0..4).flat_map(|rank| values(rank, 3)).collect();
        assert_eq!(all, expected);
    }
    part.finish()
}

fn small_values(ranks: &Communicator) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    let counts = ranks.all_reduce_f64(vec![me as f64, 1.0, 0.1], Reduce::Sum)?.wait()?;
    assert_eq!(counts[..2], [(0..world).sum::<usize>() as f64, world as f64]);
    let all = ranks.all_gather_bytes(vec![me as u8; me * 100_000])?.wait()?;
    let expected: Vec<_> = (0..world).map(|rank| vec![rank as u8; rank * 100_000]).collect();
    assert_eq!(all, expected);
    let pieces = (0..world).map(|to| vec![(16 * me + to) as u8; me * to * 1000]).collect();
    let pieces = ranks.all_to_all_bytes(pieces)?.wait()?;
    let expected: Vec<_> =
        (0..world).map(|from| vec![(16 * from + me) as u8; from * me * 1000]).collect();
    assert_eq!(pieces, expected);
    let mine = if me == 0 { vec![5; 777] } else { Vec::new() };
    assert_eq!(ranks.broadcast_bytes(mine, 0)?.wait()?, vec![5; 777]);
    let id = if me == 0 { vec![9; 128] } else { Vec::new() };
    assert_eq!(ranks.broadcast_from_rank_0(id)?, vec![9; 128]);
    Ok(())
}

/// 80 MB, with a length that is no multiple of the number of ranks or chunks.
const LARGE: usize = 20_000_003;

fn large(ranks: &Communicator) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    let began = Instant::now();
    let sum = ranks.all_reduce(values(me, LARGE), Reduce::Sum)?;
    assert!(sum.wait()? == sums(world, LARGE));
    eprintln!("rank {me}: 80 MB summed and checked in {:.2?}", began.elapsed());
    let part = ranks.reduce_scatter(values(me, (LARGE / world) * world))?.wait()?;
    assert!(part == sums(world, LARGE)[me * (LARGE / world)..][..LARGE / world]);
    let all = ranks.all_gather(values(me, LARGE))?.wait()?;
    assert!(all.chunks(LARGE).enumerate().all(|(rank, part)| part == values(rank, LARGE)));
    let broadcast = ranks.broadcast(values(me, LARGE), 1)?.wait()?;
    assert!(broadcast == values(1, LARGE));
    let bytes = ranks.all_gather_bytes(vec![me as u8; 70_000_000 + me])?.wait()?;
    assert!(
        bytes.iter().enumerate().all(|(rank, bytes)| *bytes == vec![rank as u8; 70_000_000 + rank])
    );
    let sent = &ranks.traffic()[&Operation::ReduceScatter];
    assert!(sent.bytes_sent < 4 * LARGE as u64, "{sent:?}");
    Ok(())
}

/// Starts all operations before waiting for the first; they complete without anyone waiting.
fn overlap(ranks: &Communicator) -> Result<()> {
    let lengths = [1 << 20, 3, 0, 50_001, 1 << 19];
    let sum = Operation::AllReduce(Reduce::Sum);
    let calls = || ranks.traffic().get(&sum).map_or(0, |traffic| traffic.calls);
    let before = calls();
    let begun: Result<Vec<_>> = lengths
        .iter()
        .map(|&length| ranks.all_reduce(values(ranks.rank(), length), Reduce::Sum))
        .collect();
    let begun = begun?;
    // An operation starts when all before it are complete.
    let last = ranks.all_reduce(Vec::new(), Reduce::Sum)?;
    let until = Instant::now() + Duration::from_secs(60);
    while calls() - before <= lengths.len() as u64 {
        assert!(Instant::now() < until, "operations make no progress unless waited for");
        sleep(Duration::from_millis(1));
    }
    for (pending, length) in begun.into_iter().zip(lengths).rev() {
        assert_eq!(pending.wait()?, sums(ranks.world_size(), length));
    }
    assert!(last.wait()?.is_empty());
    Ok(())
}

/// Prints timings; asserts nothing.
fn speed(ranks: &Communicator) -> Result<()> {
    for length in [25_000_000, 1_000_000, 1_000] {
        let mut values = vec![1.0; length];
        ranks.barrier()?;
        let (began, before) = (Instant::now(), cpu_ticks());
        let rounds = if length > 1_000_000 { 5 } else { 50 };
        for _ in 0..rounds {
            values = ranks.all_reduce(values, Reduce::Max)?.wait()?;
        }
        let each = began.elapsed() / rounds;
        let ticks = cpu_ticks() - before;
        say(&format!(
            "rank {}: all-reduce of {length} elements takes {each:.2?}, {ticks} ticks",
            ranks.rank()
        ));
    }
    let began = Instant::now();
    for _ in 0..1000 {
        ranks.barrier()?;
    }
    say(&format!("rank {}: a barrier takes {:.2?}", ranks.rank(), began.elapsed() / 1000));
    Ok(())
}

/// Waits two seconds for rank 1 and measures the CPU time.
fn patience(ranks: &Communicator) -> Result<()> {
    if ranks.rank() == 1 {
        sleep(Duration::from_secs(2));
    }
    let before = cpu_ticks();
    ranks.barrier()?;
    let ticks = cpu_ticks() - before;
    // One tick is 10 ms; polling without pauses takes two hundred.
    assert!(ticks < 60, "{ticks} hundredths of a second");
    eprintln!("rank {} took {ticks} hundredths of a second of CPU time to wait", ranks.rank());
    Ok(())
}

/// CPU time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next().unwrap().parse::<u64>().unwrap();
    next() + next()
}
