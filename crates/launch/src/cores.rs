//! CPU affinity: the cores that each rank of a machine is pinned to.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPU and NUMA topology in sysfs.
const SYSFS: &str = "/sys/devices/system";

/// Environment variable with the cores that the launcher assigned to a rank.
pub(crate) const CORES_ENV: &str = "EMBODIED_R_CORES";

/// Pins this process, and all threads that it starts from now on, to its cores: those assigned by the launcher, or the
/// `local_rank`th of `local_size` equal partition. Returns the cores; `None`, with nothing changed, if there are fewer
/// cores than ranks or the system refuses.
pub(crate) fn pin(local_rank: usize, local_size: usize) -> Option<Vec<usize>> {
    let mine = match std::env::var(CORES_ENV) {
        Ok(list) => parse_cpu_list(&list),
        Err(_) => share(&allowed()?, local_rank, local_size)?,
    };
    let mut set = CpuSet::new();
    mine.iter().filter(|&&core| core < CpuSet::MAX_CPU).for_each(|&core| set.set(core));
    sched_setaffinity(None, &set).ok()?;
    Some(mine)
}

/// Partitions the cores of each NUMA node among the ranks local to it. If any rank's node is unknown, all cores are
/// partitioned among all ranks.
pub(crate) fn numa_local(of_ranks: &[Option<usize>]) -> Vec<Option<Vec<usize>>> {
    partition(&allowed().unwrap_or_default(), &numa_nodes(&Path::new(SYSFS).join("node")), of_ranks)
}

fn partition(
    allowed: &[usize],
    numa_nodes: &BTreeMap<usize, usize>,
    of_ranks: &[Option<usize>],
) -> Vec<Option<Vec<usize>>> {
    let known: Option<Vec<usize>> = of_ranks.iter().copied().collect();
    let Some(known) = known else {
        return (0..of_ranks.len()).map(|rank| share(allowed, rank, of_ranks.len())).collect();
    };
    let of_node = |(rank, node): (usize, &usize)| {
        let its: Vec<usize> =
            allowed.iter().copied().filter(|core| numa_nodes.get(core) == Some(node)).collect();
        let before = known[..rank].iter().filter(|other| *other == node).count();
        share(&its, before, known.iter().filter(|other| *other == node).count())
    };
    known.iter().enumerate().map(of_node).collect()
}

/// The cores that this process may use, sorted so that cores of one NUMA node, and hyper-threads of one physical core,
/// are adjacent.
fn allowed() -> Option<Vec<usize>> {
    let set = sched_getaffinity(None).ok()?;
    let numa_nodes = numa_nodes(&Path::new(SYSFS).join("node"));
    let mut cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect();
    cores.sort_by_cached_key(|&core| {
        let node = numa_nodes.get(&core).copied().unwrap_or_default();
        (node, physical_core(&Path::new(SYSFS).join("cpu"), core), core)
    });
    Some(cores)
}

/// The NUMA node of each core, from the lists in `folder`.
fn numa_nodes(folder: &Path) -> BTreeMap<usize, usize> {
    let mut numa_nodes = BTreeMap::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let node = name.strip_prefix("node").and_then(|number| number.parse::<usize>().ok());
        let list = fs::read_to_string(entry.path().join("cpulist"));
        if let (Some(node), Ok(list)) = (node, list) {
            numa_nodes.extend(parse_cpu_list(&list).into_iter().map(|core| (core, node)));
        }
    }
    numa_nodes
}

/// The first hyper-thread of the physical core that `core` belongs to.
fn physical_core(folder: &Path, core: usize) -> usize {
    let siblings = folder.join(format!("cpu{core}/topology/thread_siblings_list"));
    let first =
        fs::read_to_string(siblings).ok().and_then(|list| parse_cpu_list(&list).first().copied());
    first.unwrap_or(core)
}

/// Parses a CPU list such as `0-3,8`.
fn parse_cpu_list(list: &str) -> Vec<usize> {
    let range = |item: &str| {
        let (first, last) = item.split_once('-').unwrap_or((item, item));
        Some(first.trim().parse::<usize>().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// The `rank`th of `ranks` contiguous, near-equal slices.
fn share(cores: &[usize], rank: usize, ranks: usize) -> Option<Vec<usize>> {
    if rank >= ranks || cores.len() < ranks {
        return None;
    }
    let from = |rank: usize| rank * cores.len() / ranks;
    Some(cores[from(rank)..from(rank + 1)].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_parsed() {
        assert_eq!(parse_cpu_list("0-2,8,10-11\n"), [0, 1, 2, 8, 10, 11]);
        assert_eq!(parse_cpu_list("\n"), Vec::<usize>::new());
    }

    #[test]
    fn every_core_has_one_rank_and_shares_are_contiguous() {
        let cores: Vec<usize> = (10..17).collect();
        let partition: Vec<_> = (0..3).map(|rank| share(&cores, rank, 3).unwrap()).collect();
        assert_eq!(partition, [vec![10, 11], vec![12, 13], vec![14, 15, 16]]);
        assert_eq!(share(&cores, 0, 8), None);
        assert_eq!(share(&cores, 3, 3), None);
    }

    #[test]
    fn ranks_get_the_cores_of_their_numa_node() {
        let numa_nodes: BTreeMap<usize, usize> = (0..8).map(|core| (core, core / 4)).collect();
        let all: Vec<usize> = (0..8).collect();
        let of = |of_ranks: &[Option<usize>]| partition(&all, &numa_nodes, of_ranks);
        let three = of(&[Some(1), Some(0), Some(1)]);
        assert_eq!(three, [vec![4, 5], vec![0, 1, 2, 3], vec![6, 7]].map(Some));
        assert_eq!(of(&[None, Some(1)]), [vec![0, 1, 2, 3], vec![4, 5, 6, 7]].map(Some));
        assert_eq!(of(&[Some(2)]), [None]);
    }

    #[test]
    fn cores_are_mapped_to_their_numa_node_and_their_sibling() {
        let dir = tempfile::tempdir().unwrap();
        for (node, list) in [(0, "0-1,4-5"), (1, "2-3,6-7")] {
            let folder = dir.path().join(format!("node{node}"));
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("cpulist"), list).unwrap();
        }
        let numa_nodes = numa_nodes(dir.path());
        let of: Vec<_> = (0..8).map(|core| numa_nodes[&core]).collect();
        assert_eq!(of, [0, 0, 1, 1, 0, 0, 1, 1]);
        let topology = dir.path().join("cpu5/topology");
        fs::create_dir_all(&topology).unwrap();
        fs::write(topology.join("thread_siblings_list"), "1,5\n").unwrap();
        assert_eq!(physical_core(dir.path(), 5), 1);
        assert_eq!(physical_core(dir.path(), 3), 3);
    }

    #[test]
    fn a_pinned_process_is_limited_to_its_share() {
        // In a thread of its own, so that the other tests keep their affinity.
        let (share, left) = std::thread::spawn(|| {
            let before = allowed().unwrap();
            let last = before.len() - 1;
            (pin(last, before.len()).unwrap(), allowed().unwrap())
        })
        .join()
        .unwrap();
        assert_eq!(share.len(), 1);
        assert_eq!(share, left);
    }
}
