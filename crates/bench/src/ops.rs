//! Kernel throughput compared with the machine's roofline, and kernel results compared with a reference.

mod attention;
mod checked;
mod cpu;
mod decimals;
#[cfg(any(feature = "cuda", feature = "cuda-host"))]
mod device;
mod machine;
mod measured;
mod op;
mod products;
mod rows;
mod target;
mod training;

use embodied_r_data::Progress;

pub use checked::Checked;
pub use machine::Machine;
pub use measured::Measured;
pub use target::Target;

use crate::error::{Error, Result};
use checked::Check;
use machine::Peaks;
use op::Op;

/// Whether an operation finds its inputs in the device's caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caches {
    /// They stay there from call to call, if they fit.
    Warm,
    /// Calls rotate over more inputs than a GPU's L2 cache holds, as a model does, whose layers have weights of their own.
    Cold,
}

/// The kernels of a device whose name contains a text, at their benchmarked shapes.
pub struct Suite {
    target: Target,
    #[cfg_attr(
        not(any(feature = "cuda", feature = "cuda-host")),
        expect(dead_code, reason = "a CPU's caches are always warm")
    )]
    caches: Caches,
    ops: Vec<Op>,
    machine: Machine,
    /// `None` if they are unknown.
    peaks: Option<Peaks>,
}

impl Suite {
    /// The kernels on `target`, all or those whose name contains `only`. Measures the CPU's peak rates. On a CPU, caches are
    /// always warm.
    ///
    /// # Errors
    /// [`Error::NoKernel`] if none is left; the device fails.
    pub fn new(target: Target, only: Option<&str>, caches: Caches) -> Result<Self> {
        let ops = match &target {
            Target::Cpu => cpu::ops(),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Target::Device(device) => device::ops(device),
        };
        Self::of(selected(ops, only, |op| op.name)?, target, caches)
    }

    /// A large product and a large copy.
    ///
    /// # Errors
    /// The device fails.
    #[cfg(any(feature = "cuda", feature = "cuda-host"))]
    pub(crate) fn of_peaks(device: &candle_core::Device) -> Result<Self> {
        Self::of(device::peak_ops(device), Target::Device(device.clone()), Caches::Warm)
    }

    fn of(ops: Vec<Op>, target: Target, caches: Caches) -> Result<Self> {
        let (machine, peaks) = match &target {
            Target::Cpu => Machine::cpu(),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Target::Device(device) => Machine::gpu(device)?,
        };
        Ok(Self { target, caches, ops, machine, peaks })
    }

    /// What the kernels run on.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Times the kernels, and calls `each` after each of them.
    ///
    /// # Errors
    /// A kernel fails, or `each`.
    pub fn measure<E: From<Error>>(
        &self,
        progress: &dyn Progress,
        mut each: impl FnMut(&Measured) -> Result<(), E>,
    ) -> Result<Vec<Measured>, E> {
        progress.start("measuring", Some(self.ops.len() as u64));
        let mut all = Vec::new();
        for op in &self.ops {
            progress.message(op.name);
            let seconds = self.seconds(op)?;
            let measured = Measured::new(op, seconds, self.peaks);
            each(&measured)?;
            all.push(measured);
            progress.advance(1);
        }
        progress.finish();
        Ok(all)
    }

    /// The best time of one call.
    fn seconds(&self, op: &Op) -> Result<f64> {
        Ok(match &self.target {
            Target::Cpu => cpu::seconds(op)?,
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Target::Device(device) => device::seconds(op, device, self.caches)?,
        })
    }
}

/// Comparisons of results: of CPU kernels with an f64 reference, of a GPU's, in f32 and in bf16, with the CPU's.
pub struct Checks<'a>(Vec<Check<'a>>);

impl<'a> Checks<'a> {
    /// The kernels on `target`, all or those whose name contains `only`.
    ///
    /// # Errors
    /// [`Error::NoKernel`] if none is left.
    pub fn new(target: &'a Target, only: Option<&str>) -> Result<Self> {
        let checks = match target {
            Target::Cpu => cpu::checks(),
            #[cfg(any(feature = "cuda", feature = "cuda-host"))]
            Target::Device(device) => device::checks(device),
        };
        selected(checks, only, |(name, _)| name).map(Self)
    }

    /// Compares, and calls `each` after each comparison.
    ///
    /// # Errors
    /// A kernel fails, or `each`.
    pub fn run<E: From<Error>>(
        &self,
        progress: &dyn Progress,
        mut each: impl FnMut(&Checked) -> Result<(), E>,
    ) -> Result<Vec<Checked>, E> {
        progress.start("checking", Some(self.0.len() as u64));
        let mut all = Vec::new();
        for (name, check) in &self.0 {
            progress.message(name);
            for checked in check()? {
                each(&checked)?;
                all.push(checked);
            }
            progress.advance(1);
        }
        progress.finish();
        Ok(all)
    }
}

/// Those of `all` whose name contains `only`.
fn selected<T>(
    all: Vec<T>,
    only: Option<&str>,
    name: impl Fn(&T) -> &'static str,
) -> Result<Vec<T>> {
    let part = only.unwrap_or_default();
    let selected: Vec<T> = all.into_iter().filter(|one| name(one).contains(part)).collect();
    match selected.is_empty() {
        true => Err(Error::NoKernel { part: part.to_owned() }),
        false => Ok(selected),
    }
}

#[cfg(test)]
#[cfg(all(feature = "cuda-host", not(feature = "cuda")))]
mod tests {
    use candle_core::Device;
    use embodied_r_data::progress::Silent;

    use super::*;

    /// Timing needs the emulation in the whole process; `tests/tests/stub_cuda.rs` covers it.
    #[test]
    fn device_operations_are_checked() {
        let target = Target::Device(Device::Cpu);
        let checks = Checks::new(&target, Some("rms_norm")).unwrap();
        let checked = checks.run::<Error>(&Silent, |_| Ok(())).unwrap();
        assert!(!checked.is_empty() && checked.iter().all(|checked| checked.holds));
        assert!(Checks::new(&target, Some("no such")).is_err());
        assert!(Suite::new(target.clone(), Some("no such"), Caches::Warm).is_err());
    }
}
