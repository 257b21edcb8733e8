//! The hardware of the planned run: GPUs with their interconnect, or this machine's CPU.

use embodied_r_grpo::estimate::memory_plan::Placement;
use embodied_r_grpo::estimate::roofline::fit::USABLE;
use embodied_r_grpo::estimate::roofline::{
    CpuPeaks, GpuSpec, InterNodeLink, IntraNodeLink, Machine, Network,
};
use embodied_r_kernels::peak::{self, Peak};
use embodied_r_policy::Precision;

use crate::args::device::DeviceName;
use crate::args::plan::{NetworkName, PlanArgs};
use crate::commands::doctor::memory_bytes;
use crate::exit::Usage;

/// Bandwidth of an InfiniBand (HDR) and of an Ethernet adapter, in Gbit/s.
const INFINIBAND: f64 = 200.0;
const ETHERNET: f64 = 100.0;

/// The hardware of a run.
pub(super) struct Hardware {
    pub(super) placement: Placement,
    pub(super) machine: Machine,
    pub(super) network: Network,
    /// The device's name.
    pub(super) name: String,
    /// Memory per rank, in bytes.
    pub(super) memory: usize,
    /// Usable memory per rank, in bytes.
    pub(super) usable: usize,
    /// The interconnect, if there are several ranks.
    pub(super) links: Option<String>,
}

impl Hardware {
    pub(super) fn of(args: &PlanArgs, precision: Precision) -> anyhow::Result<Self> {
        match args.device {
            DeviceName::Cuda => Self::gpus(args, precision),
            DeviceName::Cpu => Self::cpu(args, precision),
        }
    }

    fn gpus(args: &PlanArgs, precision: Precision) -> anyhow::Result<Self> {
        if args.ranks.is_some() {
            let what = "`--ranks` needs `--device cpu`; use `--gpus` for the number of GPUs";
            return Err(Usage(what.into()).into());
        }
        let card = card(args)?;
        let (gpus, nodes) = (args.gpus.unwrap_or(1), args.nodes.unwrap_or(1));
        let fabric = fabric(args, gpus)?;
        let network = Network::new(gpus, card.link, nodes, fabric);
        let mut links = Vec::new();
        if gpus > 1 {
            links.push(format!("{} at {:.0} GB/s", card.link.name, card.link.bytes_per_s / 1e9));
        }
        if nodes > 1 {
            links.push(format!("{} at {:.0} GB/s per node", fabric.name, fabric.bytes_per_s / 1e9));
        }
        Ok(Self {
            placement: Placement::Gpus(gpus * nodes),
            machine: Machine::gpu(&card, precision),
            network,
            name: format!("{} {:.0} GB", card.name, card.nominal_gb),
            memory: card.memory_bytes,
            usable: (USABLE * card.memory_bytes as f64) as usize,
            links: (!links.is_empty()).then(|| links.join(", ")),
        })
    }

    fn cpu(args: &PlanArgs, precision: Precision) -> anyhow::Result<Self> {
        let given = [
            ("--gpu", args.gpu.is_some()),
            ("--gpu-memory", args.gpu_memory.is_some()),
            ("--gpus", args.gpus.is_some()),
            ("--nodes", args.nodes.is_some()),
            ("--network", args.network.is_some()),
            ("--network-gbps", args.network_gbps.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Usage(format!("`{name}` does not apply to `--device cpu`")).into());
        }
        let peak = Peak::measure();
        let bf16 = match precision {
            Precision::F32 => 1.0,
            Precision::Bf16 => peak::bf16_speedup()?,
        };
        let processor = CpuPeaks {
            f32_flops_per_s: peak.flops_per_s,
            bf16_flops_per_s: bf16 * peak.flops_per_s,
            read_bytes_per_s: peak.read_bytes_per_s,
        };
        let memory = memory_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let memory = memory.unwrap_or(usize::MAX);
        let (ranks, link) = (args.ranks.unwrap_or(1), IntraNodeLink::memory());
        let links = format!("{} at {:.1} GB/s", link.name, link.bytes_per_s / 1e9);
        Ok(Self {
            placement: Placement::Cpu(ranks),
            machine: Machine::cpu(&processor, precision).shared_by(ranks),
            network: Network::new(ranks, link, 1, InterNodeLink::ethernet(ETHERNET)),
            name: match ranks {
                1 => "this machine's CPU".into(),
                _ => "a share of this machine's CPU".into(),
            },
            memory: memory / ranks,
            usable: memory / ranks,
            links: (ranks > 1).then_some(links),
        })
    }
}

pub(super) fn card(args: &PlanArgs) -> anyhow::Result<GpuSpec> {
    if let Some(gb) = args.gpu_memory {
        let what = || Usage(format!("`--gpu-memory` must be a number above 0, not {gb}"));
        anyhow::ensure!(gb.is_finite() && gb > 0.0, what());
    }
    GpuSpec::find(args.gpu.as_deref(), args.gpu_memory).ok_or_else(|| {
        let name = args.gpu.as_deref().unwrap_or_default();
        Usage(format!("unknown GPU `{name}`; available: {}", GpuSpec::names().join(", "))).into()
    })
}

fn fabric(args: &PlanArgs, gpus: usize) -> anyhow::Result<InterNodeLink> {
    if let Some(gbps) = args.network_gbps {
        let what = || Usage(format!("`--network-gbps` must be a number above 0, not {gbps}"));
        anyhow::ensure!(gbps.is_finite() && gbps > 0.0, what());
    }
    Ok(match args.network.unwrap_or_default() {
        NetworkName::Infiniband => {
            InterNodeLink::infiniband(args.network_gbps.unwrap_or(INFINIBAND), gpus)
        }
        NetworkName::Ethernet => InterNodeLink::ethernet(args.network_gbps.unwrap_or(ETHERNET)),
    })
}
