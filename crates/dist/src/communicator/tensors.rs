//! The collectives over tensors, which travel as suits where they are.

use candle_core::Tensor;
use embodied_r_kernels::memory::{self, Mark};

use super::Communicator;
use crate::error::Result;
use crate::group::Group;
use crate::link::Direct;
use crate::operation::{Operation, Reduce};
use crate::pending::Pending;

const OP: &str = "collective";

/// # Collectives over tensors
///
/// Of contiguous f32 tensors, which all ranks have on the CPU or all on GPUs. The numbers of a tensor on the CPU are read
/// and written where they are. Those on the GPU of a rank of `Communicator::nccl` never come to the host: NCCL reads
/// behind what was queued on the tensor's device before the call, and when the [`Pending`] gives the result it is there
/// for all streams. Its sums are made in an order of its own: their bits depend on the number of ranks and on how the
/// GPUs are connected. Tensors of other devices go through the host's memory. A rank that is alone gets back what it
/// gives.
///
/// Until the result is there nobody writes to the memory of what is given, and of a tensor that is summed nobody reads:
/// where a rank is lost, never again.
impl Communicator {
    /// Number by number the sum over all ranks, in place: every tensor that shares the memory has it too.
    ///
    /// # Shapes
    ///
    /// Any, with as many numbers on every rank; gives the same.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, and as of all collectives.
    pub fn sum_tensor(&self, tensor: Tensor) -> Result<Pending<Tensor>> {
        let operation = Operation::AllReduce(Reduce::Sum);
        memory::address(&tensor)?;
        if self.is_direct(&tensor) {
            return self.begin_direct(operation, Direct::Sum, tensor.clone(), tensor);
        }
        let call = self.call(operation, tensor.elem_count(), 0);
        self.begin(call, tensor, |tensor| tensor, |group, _, tensor| sum(group, tensor))
    }

    /// This rank's part of the sums over all ranks: the `rank`th of equal parts, in memory of its own.
    ///
    /// # Shapes
    ///
    /// `world_size × n` numbers on every rank give `(n)`.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, its length is not a multiple of the number of ranks, and as of all collectives.
    pub fn reduce_scatter_tensor(&self, whole: Tensor) -> Result<Pending<Tensor>> {
        let operation = Operation::ReduceScatter;
        let part = self.part_of(operation, whole.elem_count())?;
        self.begin_between(operation, Direct::ReduceScatter, whole, part, Group::reduce_scatter)
    }

    /// The numbers of all ranks, end to end, in memory of their own.
    ///
    /// # Shapes
    ///
    /// `n` numbers on every rank give `(world_size × n)`.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, and as of all collectives.
    pub fn all_gather_tensor(&self, part: Tensor) -> Result<Pending<Tensor>> {
        let whole = part.elem_count() * self.world_size();
        self.begin_between(Operation::AllGather, Direct::AllGather, part, whole, Group::all_gather)
    }

    /// Whether the ranks' connection moves memory of the tensor's device by itself.
    fn is_direct(&self, tensor: &Tensor) -> bool {
        self.0.device == Some(tensor.device().location())
    }

    /// Queues a collective from one tensor to another, without the host.
    fn begin_direct(
        &self,
        operation: Operation,
        what: Direct,
        send: Tensor,
        receive: Tensor,
    ) -> Result<Pending<Tensor>> {
        let mark = Mark::now(send.device())?;
        // In bytes, so that ranks whose tensors are elsewhere are found.
        let call = self.call(operation, size_of::<f32>() * send.elem_count(), 0);
        self.begin(
            call,
            (send, receive, mark),
            |(_, receive, _)| receive,
            move |group, _, (send, receive, mark)| {
                group.direct(what, &send, &receive, &mark)?;
                Ok(receive)
            },
        )
    }

    /// Queues a collective whose result has `length` numbers.
    fn begin_between(
        &self,
        operation: Operation,
        what: Direct,
        send: Tensor,
        length: usize,
        by_host: impl FnOnce(&mut Group, &[f32]) -> Result<Vec<f32>> + Send + 'static,
    ) -> Result<Pending<Tensor>> {
        memory::address(&send)?;
        if self.is_direct(&send) {
            let receive = memory::zeros(&[length], send.device())?;
            return self.begin_direct(operation, what, send, receive);
        }
        let call = self.call(operation, send.elem_count(), 0);
        let send = send.flatten_all().map_err(embodied_r_kernels::Error::from)?;
        self.begin(
            call,
            send,
            |send| send,
            move |group, _, send| {
                let here = memory::fetched(&send)?;
                let numbers = by_host(group, &memory::floats(&here, OP)?)?;
                Ok(memory::to_device(&memory::tensor(numbers, length)?, send.device())?)
            },
        )
    }
}

/// Sums a tensor in place: on the CPU where it is, else by way of a copy there.
fn sum(group: &mut Group, tensor: Tensor) -> Result<Tensor> {
    let here = memory::fetched(&tensor)?;
    let mut summed = Ok(());
    memory::update(&here, OP, |numbers| summed = group.all_reduce(numbers, Reduce::Sum))?;
    summed?;
    if !tensor.device().is_cpu() {
        memory::set(&tensor, &memory::floats(&here, OP)?)?;
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests;
