//! The GPUs of this machine, from `nvidia-smi` and `CUDA_VISIBLE_DEVICES`.

use std::path::Path;
use std::process::Command;

use crate::cores;
use crate::error::{Error, Result};

/// Environment variable with the devices visible to CUDA.
const VISIBLE_DEVICES_ENV: &str = "CUDA_VISIBLE_DEVICES";

/// The GPU of a rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Its name in `CUDA_VISIBLE_DEVICES`.
    name: String,
    /// PCI bus id: `0000:07:00.0`.
    pci_bus_id: String,
    /// Cores of the same NUMA node, assigned to this GPU's rank alone.
    cores: Option<Vec<usize>>,
}

impl Gpu {
    /// Environment variables of its rank.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        let mut env = vec![(VISIBLE_DEVICES_ENV, self.name.clone())];
        if std::env::var_os(VISIBLE_DEVICES_ENV).is_none() {
            // The order in which `nvidia-smi` numbers GPUs.
            env.push(("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()));
        }
        if let Some(cores) = &self.cores {
            let list: Vec<_> = cores.iter().map(usize::to_string).collect();
            env.push((cores::CORES_ENV, list.join(",")));
        }
        env
    }
}

/// The first `count` GPUs that this program may use.
///
/// # Errors
/// This build lacks CUDA, there are fewer GPUs, or several ranks lack NCCL.
pub fn select(count: usize) -> Result<Vec<Gpu>> {
    if !cfg!(feature = "cuda") {
        return Err(Error::NoCuda);
    }
    let listed = Command::new("nvidia-smi")
        .args(["--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"])
        .output();
    let listed = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => return Err(Error::NoNvidiaSmi),
    };
    #[cfg(feature = "cuda")]
    if count > 1 {
        // Before any rank starts, and once rather than by each.
        embodied_r_dist::NcclVersion::installed()?;
    }
    let mut gpus = choose(&listed, std::env::var(VISIBLE_DEVICES_ENV).ok().as_deref(), count)?;
    let nodes: Vec<_> = gpus
        .iter()
        .map(|gpu| numa_node(Path::new("/sys/bus/pci/devices"), &gpu.pci_bus_id))
        .collect();
    for (gpu, cores) in gpus.iter_mut().zip(cores::numa_local(&nodes)) {
        gpu.cores = cores;
    }
    Ok(gpus)
}

/// The first `requested` of the visible GPUs, or of all that `nvidia-smi` lists if `visible` is not set.
fn choose(listed: &str, visible: Option<&str>, requested: usize) -> Result<Vec<Gpu>> {
    let rows: Vec<[&str; 3]> = listed
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(',').map(str::trim);
            Some([fields.next()?, fields.next()?, fields.next()?])
        })
        .collect();
    let gpu = |name: &str| {
        let named = |[index, uuid, _]: &&[&str; 3]| {
            *index == name || !name.is_empty() && uuid.starts_with(name)
        };
        // `nvidia-smi` prints eight digits of the PCI domain, sysfs has four.
        let pci_bus_id =
            rows.iter().find(named).map(|[_, _, pci_bus_id]| pci_bus_id.to_lowercase())?;
        let pci_bus_id =
            pci_bus_id.get(pci_bus_id.len().saturating_sub(12)..).unwrap_or_default().to_owned();
        Some(Gpu { name: name.to_owned(), pci_bus_id, cores: None })
    };
    let mut gpus = Vec::new();
    match visible {
        None => gpus.extend(rows.iter().filter_map(|[index, ..]| gpu(index))),
        // As CUDA does: an invalid entry hides all after it.
        Some(list) => gpus.extend(list.split(',').map_while(|name| gpu(name.trim()))),
    }
    if gpus.len() < requested {
        let (found, is_limited) = (gpus.len(), visible.is_some());
        return Err(Error::TooFewGpus { requested, found, is_limited });
    }
    gpus.truncate(requested);
    Ok(gpus)
}

/// The NUMA node of a device, if the system knows it.
fn numa_node(devices: &Path, pci_bus_id: &str) -> Option<usize> {
    std::fs::read_to_string(devices.join(pci_bus_id).join("numa_node")).ok()?.trim().parse().ok()
}

/// The CUDA ordinal of this rank's GPU: 0 if only one is visible, the local rank if all are, as under `torchrun`.
#[cfg(feature = "cuda")]
pub(crate) fn ordinal(rank_info: &embodied_r_dist::RankInfo) -> usize {
    let visible = std::env::var(VISIBLE_DEVICES_ENV).ok().map(|list| list.split(',').count());
    if visible == Some(1) { 0 } else { rank_info.local_rank }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "0, GPU-aa11, 00000000:07:00.0\n1, GPU-bb22, 00000000:0F:00.0\n2, GPU-cc33, 00000000:47:00.0\n";

    fn names(visible: Option<&str>, count: usize) -> Result<Vec<String>, String> {
        let gpus = choose(LISTED, visible, count).map_err(|error| error.to_string())?;
        Ok(gpus.into_iter().map(|gpu| format!("{} {}", gpu.name, gpu.pci_bus_id)).collect())
    }

    #[test]
    fn the_first_visible_gpus_are_used() {
        assert_eq!(names(None, 2).unwrap(), ["0 0000:07:00.0", "1 0000:0f:00.0"]);
        assert_eq!(names(Some("2,GPU-bb"), 2).unwrap(), ["2 0000:47:00.0", "GPU-bb 0000:0f:00.0"]);
    }

    #[test]
    fn more_gpus_than_available_are_refused() {
        assert_eq!(names(None, 4).unwrap_err(), "`--gpus` is 4, but there are 3 in this machine");
        let message = "`--gpus` is 2, but there are 1 in `CUDA_VISIBLE_DEVICES`";
        // CUDA stops at the first invalid entry.
        assert_eq!(names(Some("1,7,2"), 2).unwrap_err(), message);
        assert_eq!(
            names(Some(""), 1).unwrap_err(),
            message.replace('2', "1").replace("are 1", "are 0")
        );
    }

    #[test]
    fn the_numa_node_of_a_device_is_read_from_sysfs() {
        let dir = tempfile::tempdir().unwrap();
        for (pci_bus_id, numa_node) in [("a", "1\n"), ("b", "-1\n")] {
            std::fs::create_dir(dir.path().join(pci_bus_id)).unwrap();
            std::fs::write(dir.path().join(pci_bus_id).join("numa_node"), numa_node).unwrap();
        }
        assert_eq!(
            ["a", "b", "c"].map(|pci_bus_id| numa_node(dir.path(), pci_bus_id)),
            [Some(1), None, None]
        );
    }
}
