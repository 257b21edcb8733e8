//! What a rank does that was started by `mpirun`.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use candle_core::{Device, Tensor};
use embodied_r_dist::{Communicator, Operation, Options, Place, Reduce, Result};

/// Longer than any test.
const FOREVER: Duration = Duration::from_secs(3600);

/// Names the scene that a rank plays.
pub(crate) const SCENE: &str = "EMBODIED_R_DIST_SCENE";

/// Plays `scene` as one of its ranks.
pub(crate) fn play(scene: &str) {
    let place = Place::from_env(|name| std::env::var(name).ok()).unwrap();
    outlive_mpirun();
    let ranks = meet(scene, &place).unwrap_or_else(|error| {
        say(&format!("rank {} ends: {error}", place.rank));
        // `mpirun` ends all ranks when the first one does; let the others have their say.
        sleep(Duration::from_secs(1));
        std::process::exit(3)
    });
    match act(scene, &ranks) {
        Ok(()) => say(&format!("scene is done on rank {}", place.rank)),
        Err(error) => {
            say(&format!("rank {} ends: {error}", place.rank));
            ranks.part();
            std::process::exit(3);
        }
    }
}

/// Writes a line at once, that lines of several ranks are not mixed up.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}

/// `mpirun` asks the other ranks to end when one was killed; they have something to say first.
fn outlive_mpirun() {
    let ignored = signal_hook::flag::register(
        signal_hook::consts::SIGTERM,
        std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false)),
    );
    ignored.unwrap();
}

fn meet(scene: &str, place: &Place) -> Result<Communicator> {
    let mut options = Options { deadline: Duration::from_secs(30), ..Options::default() };
    match scene {
        "stop" | "hang" | "endless" => options.deadline = Duration::from_secs(2),
        "settings" => {
            options.settings = BTreeMap::from([("seed".into(), place.rank.to_string())]);
        }
        _ => {}
    }
    // For ranks on machines that do not know each other by name.
    options.address =
        std::env::var("EMBODIED_R_DIST_ADDRESS").ok().map(|text| text.parse().unwrap());
    Communicator::mpi(place, &options)
}

fn act(scene: &str, ranks: &Communicator) -> Result<()> {
    ranks.enter("rollout");
    ranks.barrier()?;
    match scene {
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
            ranks.enter("checkpoint");
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
        "kill" => harm(ranks, 1, "KILL"),
        "kill-0" => harm(ranks, 0, "KILL"),
        "kill-amidst" => kill_amidst(ranks)?,
        "stop" => harm(ranks, 1, "STOP"),
        "hang" if ranks.rank() == 1 => sleep(FOREVER),
        _ => {}
    }
    if !matches!(scene, "collectives" | "large" | "overlap" | "parts" | "patience" | "speed") {
        // Somebody will not come to this.
        ranks.all_reduce(vec![0.0; 1000], Reduce::Sum)?.wait()?;
    }
    ranks.finish()
}

/// Rank `rank` sends itself a signal.
fn harm(ranks: &Communicator, rank: usize, signal: &str) {
    if ranks.rank() == rank {
        // What it told of itself is to arrive.
        sleep(Duration::from_millis(600));
        let pid = std::process::id().to_string();
        Command::new("kill").args([format!("-{signal}"), pid]).status().unwrap();
        sleep(FOREVER);
    }
}

fn kill_amidst(ranks: &Communicator) -> Result<()> {
    let doomed = ranks.clone();
    std::thread::spawn(move || harm(&doomed, 1, "KILL"));
    endless(ranks)
}

/// Sums until somebody ends it: for harm from outside, such as a link that is cut.
fn endless(ranks: &Communicator) -> Result<()> {
    ranks.enter("update");
    let mut numbers = vec![1.0; 4 << 20];
    loop {
        numbers = ranks.all_reduce(numbers, Reduce::Max)?.wait()?;
    }
}

/// Numbers of a rank, of all magnitudes, so that sums depend on the order.
fn numbers(rank: usize, length: usize) -> Vec<f32> {
    (0..length).map(|at| ((at % 9973 * 31 + rank * 17 + 3) as f32).sin() * 1e3).collect()
}

fn sums(world_size: usize, length: usize) -> Vec<f32> {
    let mut sums = numbers(0, length);
    for rank in 1..world_size {
        sums.iter_mut().zip(numbers(rank, length)).for_each(|(sum, number)| *sum += number);
    }
    sums
}

fn collectives(ranks: &Communicator) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    for length in [0, 1, 2, 3, 1000, 4097, 100_003] {
        let sum = ranks.all_reduce(numbers(me, length), Reduce::Sum)?;
        let max = ranks.all_reduce(numbers(me, length), Reduce::Max)?;
        let part = ranks.reduce_scatter(numbers(me, length * world))?;
        let all = ranks.all_gather(numbers(me, length))?;
        let handed = ranks.broadcast(numbers(me, length), world - 1)?;
        assert_eq!(sum.wait()?, sums(world, length));
        let greatest = (0..length)
            .map(|at| (0..world).map(|rank| numbers(rank, length)[at]).fold(f32::MIN, f32::max));
        if length <= 1000 {
            assert_eq!(max.wait()?, greatest.collect::<Vec<_>>());
        }
        assert_eq!(part.wait()?, sums(world, length * world)[me * length..][..length]);
        let expected: Vec<_> = (0..world).flat_map(|rank| numbers(rank, length)).collect();
        assert_eq!(all.wait()?, expected);
        assert_eq!(handed.wait()?, numbers(world - 1, length));
        tensors(ranks, length)?;
        ranks.barrier()?;
    }
    small_values(ranks)
}

fn tensors(ranks: &Communicator, length: usize) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    let flat = |length| Tensor::from_vec(numbers(me, length), length, &Device::Cpu).unwrap();
    let sum = ranks.sum_tensor(flat(length))?;
    let part = ranks.reduce_scatter_tensor(flat(length * world))?;
    let all = ranks.all_gather_tensor(flat(length))?;
    let read = |tensor: Tensor| tensor.to_vec1::<f32>().unwrap();
    assert_eq!(read(sum.wait()?), sums(world, length));
    assert_eq!(read(part.wait()?), sums(world, length * world)[me * length..][..length]);
    let expected: Vec<_> = (0..world).flat_map(|rank| numbers(rank, length)).collect();
    assert_eq!(read(all.wait()?), expected);
    Ok(())
}

/// Two parts, of which one makes many more calls.
fn parts(ranks: &Communicator) -> Result<()> {
    let part = ranks.split(2)?;
    let first = ranks.rank() / 2 * 2;
    for length in [0, 1, 5000, 100_003] {
        for _ in 0..1 + 10 * first {
            let sum = part.all_reduce(numbers(ranks.rank(), length), Reduce::Sum)?.wait()?;
            let pair = numbers(first, length).into_iter().zip(numbers(first + 1, length));
            assert_eq!(sum, pair.map(|(a, b)| a + b).collect::<Vec<_>>());
        }
        let told = part.broadcast_bytes(vec![ranks.rank() as u8; 9], 1)?.wait()?;
        assert_eq!(told, vec![first as u8 + 1; 9]);
        let all = ranks.all_gather(numbers(ranks.rank(), 3))?.wait()?;
        let expected: Vec<_> = (0..4).flat_map(|rank| numbers(rank, 3)).collect();
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
    assert_eq!(ranks.share(id)?, vec![9; 128]);
    Ok(())
}

/// 80 MB, in a length that no number of ranks or pieces divides.
const LARGE: usize = 20_000_003;

fn large(ranks: &Communicator) -> Result<()> {
    let (me, world) = (ranks.rank(), ranks.world_size());
    let began = Instant::now();
    let sum = ranks.all_reduce(numbers(me, LARGE), Reduce::Sum)?;
    assert!(sum.wait()? == sums(world, LARGE));
    eprintln!("rank {me}: 80 MB summed and checked in {:.2?}", began.elapsed());
    let part = ranks.reduce_scatter(numbers(me, (LARGE / world) * world))?.wait()?;
    assert!(part == sums(world, LARGE)[me * (LARGE / world)..][..LARGE / world]);
    let all = ranks.all_gather(numbers(me, LARGE))?.wait()?;
    assert!(all.chunks(LARGE).enumerate().all(|(rank, part)| part == numbers(rank, LARGE)));
    let handed = ranks.broadcast(numbers(me, LARGE), 1)?.wait()?;
    assert!(handed == numbers(1, LARGE));
    let bytes = ranks.all_gather_bytes(vec![me as u8; 70_000_000 + me])?.wait()?;
    assert!(
        bytes.iter().enumerate().all(|(rank, bytes)| *bytes == vec![rank as u8; 70_000_000 + rank])
    );
    let sent = &ranks.traffic()[&Operation::ReduceScatter];
    assert!(sent.bytes_sent < 4 * LARGE as u64, "{sent:?}");
    Ok(())
}

/// All operations are begun before the first is waited for, and end without anybody waiting.
fn overlap(ranks: &Communicator) -> Result<()> {
    let lengths = [1 << 20, 3, 0, 50_001, 1 << 19];
    let begun: Result<Vec<_>> = lengths
        .iter()
        .map(|&length| ranks.all_reduce(numbers(ranks.rank(), length), Reduce::Sum))
        .collect();
    let begun = begun?;
    let until = Instant::now() + Duration::from_secs(60);
    while !begun.iter().all(|pending| pending.is_ready()) {
        assert!(Instant::now() < until, "nothing moves unless it is waited for");
        sleep(Duration::from_millis(1));
    }
    for (pending, length) in begun.into_iter().zip(lengths).rev() {
        assert_eq!(pending.wait()?, sums(ranks.world_size(), length));
    }
    Ok(())
}

/// Tells times; nothing depends on them.
fn speed(ranks: &Communicator) -> Result<()> {
    for length in [25_000_000, 1_000_000, 1_000] {
        let mut numbers = vec![1.0; length];
        ranks.barrier()?;
        let (began, before) = (Instant::now(), processor_ticks());
        let rounds = if length > 1_000_000 { 5 } else { 50 };
        for _ in 0..rounds {
            numbers = ranks.all_reduce(numbers, Reduce::Max)?.wait()?;
        }
        let each = began.elapsed() / rounds;
        let ticks = processor_ticks() - before;
        say(&format!(
            "rank {}: all-reduce of {length} numbers takes {each:.2?}, {ticks} ticks",
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

/// Waits two seconds for rank 1, and looks what that costs.
fn patience(ranks: &Communicator) -> Result<()> {
    if ranks.rank() == 1 {
        sleep(Duration::from_secs(2));
    }
    let before = processor_ticks();
    ranks.barrier()?;
    let ticks = processor_ticks() - before;
    // A hundredth of a second each; polling without pauses takes two hundred.
    assert!(ticks < 60, "{ticks} hundredths of a second");
    eprintln!("rank {} waited for {ticks} hundredths of a second of processor time", ranks.rank());
    Ok(())
}

/// Processor time of this process, in hundredths of a second.
fn processor_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after_name = stat.rsplit(')').next().unwrap();
    let mut fields = after_name.split_whitespace().skip(11);
    let mut next = || fields.next().unwrap().parse::<u64>().unwrap();
    next() + next()
}
