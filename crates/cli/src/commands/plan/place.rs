//! Where the planned run is: cards and what is between them, or this machine's processor.

use embodied_r_grpo::roofline::fit::{Place, USABLE};
use embodied_r_grpo::roofline::{Card, Fabric, Machine, Network, Processor};
use embodied_r_kernels::peak::{self, Peak};
use embodied_r_policy::Precision;

use crate::args::plan::{DeviceName, NetworkName, PlanArgs};
use crate::commands::doctor::memory_bytes;
use crate::exit::Usage;

/// Gigabits a second of an InfiniBand adapter (HDR), and of an Ethernet one.
const INFINIBAND: f64 = 200.0;
const ETHERNET: f64 = 100.0;

/// The devices of a run.
pub(super) struct Where {
    pub(super) place: Place,
    pub(super) machine: Machine,
    pub(super) network: Network,
    /// The device's name.
    pub(super) name: String,
    /// Bytes of its memory.
    pub(super) memory: usize,
    /// Bytes of it that a rank may take.
    pub(super) usable: usize,
    /// What is between the ranks, if there are several.
    pub(super) links: Option<String>,
}

impl Where {
    pub(super) fn of(args: &PlanArgs, precision: Precision) -> anyhow::Result<Self> {
        match args.device {
            DeviceName::Gpu => Self::gpus(args),
            DeviceName::Cpu => Self::cpu(args, precision),
        }
    }

    fn gpus(args: &PlanArgs) -> anyhow::Result<Self> {
        let card = card(args)?;
        let (gpus, nodes) = (args.gpus.unwrap_or(1), args.nodes.unwrap_or(1));
        let fabric = fabric(args, gpus)?;
        let network = Network::new(gpus, card.link, nodes, fabric);
        let mut links = Vec::new();
        if gpus > 1 {
            links.push(format!("{} at {:.0} GB/s", card.link.name, card.link.bytes_per_s / 1e9));
        }
        if nodes > 1 {
            links.push(format!(
                "{} at {:.0} GB/s a machine",
                fabric.name,
                fabric.bytes_per_s / 1e9
            ));
        }
        Ok(Self {
            place: Place::Gpus(gpus * nodes),
            machine: Machine::gpu(&card),
            network,
            name: format!("{} {:.0} GB", card.name, card.sold_gb),
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
            ("--gradients", args.gradients.is_some()),
        ];
        if let Some((name, _)) = given.iter().find(|(_, given)| *given) {
            return Err(Usage(format!("`{name}` means nothing with `--device cpu`")).into());
        }
        let peak = Peak::measure();
        let bf16 = match precision {
            Precision::F32 => 1.0,
            Precision::Bf16 => peak::bf16_over_f32()?,
        };
        let processor = Processor {
            f32_per_s: peak.flops_per_s,
            bf16_per_s: bf16 * peak.flops_per_s,
            read_bytes_per_s: peak.read_bytes_per_s,
        };
        let memory = memory_bytes().and_then(|bytes| usize::try_from(bytes).ok());
        let memory = memory.unwrap_or(usize::MAX);
        Ok(Self {
            place: Place::Cpu,
            machine: Machine::cpu(&processor, precision),
            network: Network::SINGLE,
            name: "this machine's processor".into(),
            memory,
            usable: memory,
            links: None,
        })
    }
}

pub(super) fn card(args: &PlanArgs) -> anyhow::Result<Card> {
    if let Some(gb) = args.gpu_memory {
        let what = || Usage(format!("`--gpu-memory` is {gb}, must be a positive number"));
        anyhow::ensure!(gb.is_finite() && gb > 0.0, what());
    }
    Card::find(args.gpu.as_deref(), args.gpu_memory).ok_or_else(|| {
        let name = args.gpu.as_deref().unwrap_or_default();
        Usage(format!("`--gpu {name}` is not known; known are {}", Card::names().join(", "))).into()
    })
}

fn fabric(args: &PlanArgs, gpus: usize) -> anyhow::Result<Fabric> {
    if let Some(gbps) = args.network_gbps {
        let what = || Usage(format!("`--network-gbps` is {gbps}, must be a positive number"));
        anyhow::ensure!(gbps.is_finite() && gbps > 0.0, what());
    }
    Ok(match args.network.unwrap_or_default() {
        NetworkName::Infiniband => {
            Fabric::infiniband(args.network_gbps.unwrap_or(INFINIBAND), gpus)
        }
        NetworkName::Ethernet => Fabric::ethernet(args.network_gbps.unwrap_or(ETHERNET)),
    })
}
