//! What ranks send each other, and how long it takes.

use crate::memory_plan::BUCKET;

/// How the cards of a machine reach each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// Its name.
    pub name: &'static str,
    /// Bytes a second that a ring over it has been seen to carry in one direction.
    pub bytes_per_s: f64,
}

impl Link {
    /// NVLink through a switch, by its gigabytes a second in one direction. Rings reach 0.78 of it: nccl-tests shows a bus
    /// bandwidth of 230 to 240 GB/s on eight A100, and 350 to 370 on eight H100.
    pub const fn nvlink(gigabytes_per_s: f64) -> Self {
        Self { name: "NVLink", bytes_per_s: 0.78e9 * gigabytes_per_s }
    }

    /// PCIe with direct access between cards: 0.65 of one direction.
    pub const fn pcie(gigabytes_per_s: f64) -> Self {
        Self { name: "PCIe", bytes_per_s: 0.65e9 * gigabytes_per_s }
    }

    /// A machine's own memory, through MPI and the copies around it: two ranks have been seen to sum 100 MB in 0.06 s, for
    /// which each sends as much.
    pub const fn memory() -> Self {
        Self { name: "MPI within the machine", bytes_per_s: 1.7e9 }
    }

    /// PCIe without it: every byte goes into the host's memory and out of it again.
    pub const fn through_host(gigabytes_per_s: f64) -> Self {
        Self { name: "PCIe through the host", bytes_per_s: 0.3e9 * gigabytes_per_s }
    }
}

/// How machines reach each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fabric {
    /// Its name.
    pub name: &'static str,
    /// Bytes a second that leave a machine.
    pub bytes_per_s: f64,
    /// Seconds from a machine to the next, however little is sent.
    pub hop_s: f64,
}

/// Share of a network's rate that reaches the program: headers, and rings that are not always full.
const CARRIED: f64 = 0.9;

impl Fabric {
    /// InfiniBand with so many gigabits a second for each card (200 with HDR, 400 with NDR).
    pub fn infiniband(gigabits_per_s: f64, cards: usize) -> Self {
        let bytes_per_s = CARRIED * gigabits_per_s * 1e9 / 8.0 * cards as f64;
        Self { name: "InfiniBand", bytes_per_s, hop_s: 6e-6 }
    }

    /// Ethernet with so many gigabits a second for each machine, through the kernel's TCP.
    pub fn ethernet(gigabits_per_s: f64) -> Self {
        let bytes_per_s = CARRIED * gigabits_per_s * 1e9 / 8.0;
        Self { name: "Ethernet", bytes_per_s, hop_s: 30e-6 }
    }
}

/// The ranks of a run and what is between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Ranks, one a card.
    pub ranks: usize,
    /// Machines that they are on.
    pub nodes: usize,
    /// Bytes a second that a ring over all ranks carries.
    pub ring_bytes_per_s: f64,
    /// Seconds that a byte takes once around the ring.
    round_s: f64,
}

/// Seconds from a card to the next of the same machine, however little is sent (NCCL over NVLink).
const NEAR_HOP_S: f64 = 2e-6;

impl Network {
    /// One rank, which talks to nobody.
    pub const SINGLE: Self = Self { ranks: 1, nodes: 1, ring_bytes_per_s: f64::MAX, round_s: 0.0 };

    /// `cards` cards in each of `nodes` machines. A ring is as fast as its slowest part.
    pub fn new(cards: usize, link: Link, nodes: usize, fabric: Fabric) -> Self {
        let ranks = cards * nodes;
        if ranks <= 1 {
            return Self::SINGLE;
        }
        let near = if cards > 1 { link.bytes_per_s } else { f64::MAX };
        let far = if nodes > 1 { fabric.bytes_per_s } else { f64::MAX };
        let far_hops = if nodes > 1 { nodes } else { 0 };
        let near_hops = (ranks - 1).saturating_sub(far_hops);
        Self {
            ranks,
            nodes,
            ring_bytes_per_s: near.min(far),
            round_s: near_hops as f64 * NEAR_HOP_S + far_hops as f64 * fabric.hop_s,
        }
    }

    /// Bytes that each rank sends in a reduce-scatter or an all-gather of `bytes`: (n - 1) / n of them.
    pub fn ring_bytes(&self, bytes: f64) -> f64 {
        bytes * (self.ranks.max(1) - 1) as f64 / self.ranks.max(1) as f64
    }

    /// Seconds of a reduce-scatter or an all-gather of `bytes`, bucket by bucket.
    pub fn ring_s(&self, bytes: f64) -> f64 {
        let buckets = (bytes / BUCKET as f64).ceil();
        self.ring_bytes(bytes) / self.ring_bytes_per_s + buckets * self.round_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reduction_and_a_gathering_make_an_all_reduce_of_2_n_minus_1_over_n() {
        let eight = Network::new(8, Link::nvlink(300.0), 1, Fabric::ethernet(100.0));
        assert_eq!(2.0 * eight.ring_bytes(8e9), 14e9);
        let two = Network::new(2, Link::nvlink(300.0), 1, Fabric::ethernet(100.0));
        assert_eq!(2.0 * two.ring_bytes(8e9), 8e9);
        assert_eq!((Network::SINGLE.ring_bytes(8e9), Network::SINGLE.ring_s(8e9)), (0.0, 0.0));
    }

    #[test]
    fn a_ring_over_machines_is_as_fast_as_what_leaves_one() {
        let link = Link::nvlink(300.0);
        let fast = Network::new(8, link, 2, Fabric::infiniband(400.0, 8));
        assert_eq!(fast.ring_bytes_per_s, link.bytes_per_s);
        let slow = Network::new(8, link, 2, Fabric::infiniband(100.0, 8));
        assert_eq!(slow.ring_bytes_per_s, 0.9 * 100e9);
        assert_eq!(
            Network::new(8, link, 2, Fabric::ethernet(100.0)).ring_bytes_per_s,
            0.9 * 12.5e9
        );
    }

    #[test]
    fn hops_add_up_with_the_ranks() {
        let of = |nodes| Network::new(8, Link::nvlink(300.0), nodes, Fabric::infiniband(400.0, 8));
        // A bucket of one byte: 7 hops within a machine; 120 within and 16 between machines, less the one that closes the ring.
        assert!((of(1).ring_s(1.0) - 7.0 * 2e-6).abs() < 1e-9);
        assert!((of(16).ring_s(1.0) - (111.0 * 2e-6 + 16.0 * 6e-6)).abs() < 1e-9);
    }
}
