//! The GPUs of this machine, as `nvidia-smi` and `CUDA_VISIBLE_DEVICES` tell of them.

use std::path::Path;
use std::process::Command;

use embodied_r_dist::Meeting;

use super::cores;
use crate::exit::{self, Usage};

/// Which devices CUDA shows to a program.
const VISIBLE: &str = "CUDA_VISIBLE_DEVICES";

/// A GPU that a rank computes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gpu {
    /// Its name in `CUDA_VISIBLE_DEVICES`.
    name: String,
    /// Where the system has it: `0000:07:00.0`.
    bus: String,
    /// Cores of the same memory node, which no other GPU's rank has.
    cores: Option<Vec<usize>>,
}

impl Gpu {
    /// What its rank finds in the environment.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(VISIBLE, self.name.clone())];
        if std::env::var_os(VISIBLE).is_none() {
            // In which order `nvidia-smi` counts.
            variables.push(("CUDA_DEVICE_ORDER", "PCI_BUS_ID".into()));
        }
        if let Some(cores) = &self.cores {
            let list: Vec<_> = cores.iter().map(usize::to_string).collect();
            variables.push((cores::GIVEN, list.join(",")));
        }
        variables
    }
}

/// The first `count` GPUs that this program may use.
///
/// # Errors
/// This build knows no GPUs, or there are fewer.
pub(super) fn first(count: usize) -> anyhow::Result<Vec<Gpu>> {
    if !cfg!(feature = "cuda") {
        return Err(exit::hint(
            "this program was built without CUDA, and `--gpus` needs it",
            "`cargo build --release --package embodied-r-cli --features cuda` builds it with, where NVIDIA's CUDA \
             toolkit and NCCL are; `--ranks N` trains with several processes on the CPU",
        ));
    }
    let listed = Command::new("nvidia-smi")
        .args(["--query-gpu=index,uuid,pci.bus_id", "--format=csv,noheader"])
        .output();
    let listed = match listed {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
        _ => {
            let told = "`nvidia-smi`, which tells the GPUs of this machine, cannot be run";
            return Err(exit::hint(told, "look at `embodied-r doctor`"));
        }
    };
    let mut gpus = choose(&listed, std::env::var(VISIBLE).ok().as_deref(), count)?;
    let nodes: Vec<_> =
        gpus.iter().map(|gpu| node(Path::new("/sys/bus/pci/devices"), &gpu.bus)).collect();
    for (gpu, cores) in gpus.iter_mut().zip(cores::near(&nodes)) {
        gpu.cores = cores;
    }
    Ok(gpus)
}

/// The first `count` of the GPUs that `nvidia-smi` lists, or of those that are `visible`.
fn choose(listed: &str, visible: Option<&str>, count: usize) -> Result<Vec<Gpu>, Usage> {
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
        // With eight digits of the domain, where the system has four.
        let bus = rows.iter().find(named).map(|[_, _, bus]| bus.to_lowercase())?;
        let bus = bus.get(bus.len().saturating_sub(12)..).unwrap_or_default().to_owned();
        Some(Gpu { name: name.to_owned(), bus, cores: None })
    };
    let mut gpus = Vec::new();
    match visible {
        None => gpus.extend(rows.iter().filter_map(|[index, ..]| gpu(index))),
        // As CUDA does: what stands behind one that is not there does not count.
        Some(list) => gpus.extend(list.split(',').map_while(|name| gpu(name.trim()))),
    }
    if gpus.len() < count {
        let whose = if visible.is_some() { "in `CUDA_VISIBLE_DEVICES`" } else { "in this machine" };
        return Err(Usage(format!("`--gpus` is {count}, but there are {} {whose}", gpus.len())));
    }
    gpus.truncate(count);
    Ok(gpus)
}

/// The memory node that a device is next to, where the system knows.
fn node(devices: &Path, bus: &str) -> Option<usize> {
    std::fs::read_to_string(devices.join(bus).join("numa_node")).ok()?.trim().parse().ok()
}

/// Where the ranks of this machine meet.
pub(super) fn meeting() -> anyhow::Result<[(&'static str, String); 3]> {
    Ok(Meeting::variables_here()?)
}

/// Comes together with the other ranks of GPUs. Where each sees all GPUs of its machine, as `torchrun` has it, it takes
/// that of its own number there.
#[cfg(feature = "cuda")]
pub(super) fn join(
    place: &embodied_r_dist::Place,
    options: &embodied_r_dist::Options,
) -> anyhow::Result<embodied_r_dist::Communicator> {
    let lookup = |name: &str| std::env::var(name).ok();
    let meeting = Meeting::from_env(lookup).map_err(|error| Usage(error.to_string()))?;
    Ok(embodied_r_dist::Communicator::nccl(place, &meeting, ordinal(place), options)?)
}

/// Which of the GPUs that CUDA shows is this rank's: the only one, or that of its own number on its machine.
#[cfg(feature = "cuda")]
pub(super) fn ordinal(place: &embodied_r_dist::Place) -> usize {
    let visible = std::env::var(VISIBLE).ok().map(|list| list.split(',').count());
    if visible == Some(1) { 0 } else { place.local_rank }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: &str = "0, GPU-aa11, 00000000:07:00.0\n1, GPU-bb22, 00000000:0F:00.0\n2, GPU-cc33, 00000000:47:00.0\n";

    fn names(visible: Option<&str>, count: usize) -> Result<Vec<String>, String> {
        let gpus = choose(LISTED, visible, count).map_err(|error| error.to_string())?;
        Ok(gpus.into_iter().map(|gpu| format!("{} {}", gpu.name, gpu.bus)).collect())
    }

    #[test]
    fn the_first_of_those_that_may_be_used_are_taken() {
        assert_eq!(names(None, 2).unwrap(), ["0 0000:07:00.0", "1 0000:0f:00.0"]);
        assert_eq!(names(Some("2,GPU-bb"), 2).unwrap(), ["2 0000:47:00.0", "GPU-bb 0000:0f:00.0"]);
    }

    #[test]
    fn fewer_than_asked_for_are_refused() {
        assert_eq!(names(None, 4).unwrap_err(), "`--gpus` is 4, but there are 3 in this machine");
        let told = "`--gpus` is 2, but there are 1 in `CUDA_VISIBLE_DEVICES`";
        // CUDA stops at the first that is not there.
        assert_eq!(names(Some("1,7,2"), 2).unwrap_err(), told);
        assert_eq!(
            names(Some(""), 1).unwrap_err(),
            told.replace('2', "1").replace("are 1", "are 0")
        );
    }

    #[test]
    fn a_device_knows_its_memory_node() {
        let dir = tempfile::tempdir().unwrap();
        for (bus, node) in [("a", "1\n"), ("b", "-1\n")] {
            std::fs::create_dir(dir.path().join(bus)).unwrap();
            std::fs::write(dir.path().join(bus).join("numa_node"), node).unwrap();
        }
        assert_eq!(["a", "b", "c"].map(|bus| node(dir.path(), bus)), [Some(1), None, None]);
    }
}
