//! Communication volumes and times.

use crate::update::optimizer::BUCKET_BYTES;

/// The link between GPUs of a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct IntraNodeLink {
    /// Name.
    pub name: &'static str,
    /// Measured ring bandwidth in one direction, in bytes per second.
    pub bytes_per_s: f64,
}

impl IntraNodeLink {
    /// NVLink through a switch, in GB/s per direction. Rings reach 0.78 of it: nccl-tests reports a bus bandwidth of
    /// 230 to 240 GB/s on eight A100, and 350 to 370 on eight H100.
    pub const fn nvlink(gigabytes_per_s: f64) -> Self {
        Self { name: "NVLink", bytes_per_s: 0.78e9 * gigabytes_per_s }
    }

    /// PCIe with peer-to-peer access: rings reach 0.65 of one direction.
    pub const fn pcie(gigabytes_per_s: f64) -> Self {
        Self { name: "PCIe", bytes_per_s: 0.65e9 * gigabytes_per_s }
    }

    /// Shared memory through MPI with its copies: two ranks were measured to all-reduce 100 MB in 0.06 s, each sending
    /// as much.
    pub const fn memory() -> Self {
        Self { name: "MPI within the machine", bytes_per_s: 1.7e9 }
    }

    /// PCIe without peer-to-peer access: every byte is staged through host memory.
    pub const fn through_host(gigabytes_per_s: f64) -> Self {
        Self { name: "PCIe through the host", bytes_per_s: 0.3e9 * gigabytes_per_s }
    }
}

/// The link between nodes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InterNodeLink {
    /// Name.
    pub name: &'static str,
    /// Bandwidth out of a node in bytes per second.
    pub bytes_per_s: f64,
    /// Latency between nodes in seconds.
    pub hop_s: f64,
}

/// Usable fraction of a network's bandwidth, after headers and partly filled rings.
const CARRIED: f64 = 0.9;

impl InterNodeLink {
    /// InfiniBand in Gbit/s per GPU (200 with HDR, 400 with NDR), for this many GPUs per node.
    pub fn infiniband(gigabits_per_s: f64, gpus: usize) -> Self {
        let bytes_per_s = CARRIED * gigabits_per_s * 1e9 / 8.0 * gpus as f64;
        Self { name: "InfiniBand", bytes_per_s, hop_s: 6e-6 }
    }

    /// Ethernet in Gbit/s per node, through the kernel's TCP.
    pub fn ethernet(gigabits_per_s: f64) -> Self {
        let bytes_per_s = CARRIED * gigabits_per_s * 1e9 / 8.0;
        Self { name: "Ethernet", bytes_per_s, hop_s: 30e-6 }
    }
}

/// The ranks of a run and their links.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Network {
    /// Ranks, one per GPU.
    pub ranks: usize,
    /// Number of nodes.
    pub nodes: usize,
    /// Bandwidth of a ring over all ranks, in bytes per second.
    pub ring_bytes_per_s: f64,
    /// Latency once around the ring, in seconds.
    round_s: f64,
}

/// Latency between GPUs of a node in seconds (NCCL over NVLink).
const NEAR_HOP_S: f64 = 2e-6;

impl Network {
    /// A single rank without communication.
    pub const SINGLE: Self = Self { ranks: 1, nodes: 1, ring_bytes_per_s: f64::MAX, round_s: 0.0 };

    /// `gpus` GPUs in each of `nodes` nodes. A ring is as fast as its slowest link.
    pub fn new(gpus: usize, link: IntraNodeLink, nodes: usize, inter_node: InterNodeLink) -> Self {
        let ranks = gpus * nodes;
        if ranks <= 1 {
            return Self::SINGLE;
        }
        let near = if gpus > 1 { link.bytes_per_s } else { f64::MAX };
        let far = if nodes > 1 { inter_node.bytes_per_s } else { f64::MAX };
        let far_hops = if nodes > 1 { nodes } else { 0 };
        let near_hops = (ranks - 1).saturating_sub(far_hops);
        Self {
            ranks,
            nodes,
            ring_bytes_per_s: near.min(far),
            round_s: near_hops as f64 * NEAR_HOP_S + far_hops as f64 * inter_node.hop_s,
        }
    }

    /// Bytes that each rank sends in a reduce-scatter or an all-gather of `bytes`: (n - 1) / n of them.
    pub fn ring_bytes(&self, bytes: f64) -> f64 {
        bytes * (self.ranks.max(1) - 1) as f64 / self.ranks.max(1) as f64
    }

    /// Seconds of a reduce-scatter or an all-gather of `bytes`, bucket by bucket.
    pub fn ring_s(&self, bytes: f64) -> f64 {
        let buckets = (bytes / BUCKET_BYTES as f64).ceil();
        self.ring_bytes(bytes) / self.ring_bytes_per_s + buckets * self.round_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduce_scatter_and_all_gather_move_2_n_minus_1_over_n() {
        let eight =
            Network::new(8, IntraNodeLink::nvlink(300.0), 1, InterNodeLink::ethernet(100.0));
        assert_eq!(2.0 * eight.ring_bytes(8e9), 14e9);
        let two = Network::new(2, IntraNodeLink::nvlink(300.0), 1, InterNodeLink::ethernet(100.0));
        assert_eq!(2.0 * two.ring_bytes(8e9), 8e9);
        assert_eq!((Network::SINGLE.ring_bytes(8e9), Network::SINGLE.ring_s(8e9)), (0.0, 0.0));
    }

    #[test]
    fn a_ring_over_nodes_is_bounded_by_the_inter_node_link() {
        let link = IntraNodeLink::nvlink(300.0);
        let fast = Network::new(8, link, 2, InterNodeLink::infiniband(400.0, 8));
        assert_eq!(fast.ring_bytes_per_s, link.bytes_per_s);
        let slow = Network::new(8, link, 2, InterNodeLink::infiniband(100.0, 8));
        assert_eq!(slow.ring_bytes_per_s, 0.9 * 100e9);
        assert_eq!(
            Network::new(8, link, 2, InterNodeLink::ethernet(100.0)).ring_bytes_per_s,
            0.9 * 12.5e9
        );
    }

    #[test]
    fn latency_grows_with_the_ranks() {
        let of = |nodes| {
            Network::new(
                8,
                IntraNodeLink::nvlink(300.0),
                nodes,
                InterNodeLink::infiniband(400.0, 8),
            )
        };
        // A bucket of one byte: 7 hops within a node; with 16 nodes 111 within and 16 between nodes.
        assert!((of(1).ring_s(1.0) - 7.0 * 2e-6).abs() < 1e-9);
        assert!((of(16).ring_s(1.0) - (111.0 * 2e-6 + 16.0 * 6e-6)).abs() < 1e-9);
    }
}
