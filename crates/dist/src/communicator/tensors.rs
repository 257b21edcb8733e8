//! Tensor collectives, which use the fastest path for the tensor's device.

use candle_core::Tensor;
use embodied_r_kernels::memory::{self, StreamEvent};

use super::Communicator;
use crate::error::Result;
use crate::group::Group;
use crate::link::DirectCollective;
use crate::operation::{Operation, Reduce};
use crate::pending::Pending;

const OP: &str = "collective";

/// # Collectives over tensors
///
/// Tensors must be contiguous f32, on the CPU on all ranks or on GPUs on all ranks. CPU tensors are read and written in
/// place. GPU tensors of a `Communicator::nccl` rank never pass through the host: NCCL reads after all work queued on
/// the tensor's device before the call, and once the [`Pending`] returns, the result is visible to all streams. NCCL
/// chooses the order of its sums, so their bits depend on the number of ranks and on the GPU topology. Tensors of other
/// devices are staged through host memory. A single rank gets its input back.
///
/// Until the result is ready, the input's memory must not be written, and the memory of an all-reduced tensor must not
/// be read either. After a failure both hold forever.
impl Communicator {
    /// All-reduces (sum) a tensor in place; tensors that share its memory see the result too.
    ///
    /// # Shapes
    ///
    /// Any, with the same number of elements on every rank; the result has the same shape.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, and as for all collectives.
    pub fn all_reduce_tensor(&self, tensor: Tensor) -> Result<Pending<Tensor>> {
        let operation = Operation::AllReduce(Reduce::Sum);
        memory::data_ptr(&tensor)?;
        if self.is_direct(&tensor) {
            return self.begin_direct(operation, DirectCollective::Sum, tensor.clone(), tensor);
        }
        let call = self.call(operation, tensor.elem_count(), 0);
        self.begin(call, tensor, |tensor| tensor, |group, _, tensor| sum(group, tensor))
    }

    /// Reduce-scatter: the `rank`th of the equal chunks of the sums over all ranks, in new memory.
    ///
    /// # Shapes
    ///
    /// `world_size × n` elements on every rank give `(n)`.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, its length is not a multiple of the number of ranks, and as for all
    /// collectives.
    pub fn reduce_scatter_tensor(&self, whole: Tensor) -> Result<Pending<Tensor>> {
        let operation = Operation::ReduceScatter;
        let part = self.part_of(operation, whole.elem_count())?;
        self.begin_between(
            operation,
            DirectCollective::ReduceScatter,
            whole,
            part,
            Group::reduce_scatter,
        )
    }

    /// All-gather: the elements of all ranks, concatenated in new memory.
    ///
    /// # Shapes
    ///
    /// `n` elements on every rank give `(world_size × n)`.
    ///
    /// # Errors
    ///
    /// The tensor is not contiguous f32, and as for all collectives.
    pub fn all_gather_tensor(&self, part: Tensor) -> Result<Pending<Tensor>> {
        let whole = part.elem_count() * self.world_size();
        self.begin_between(
            Operation::AllGather,
            DirectCollective::AllGather,
            part,
            whole,
            Group::all_gather,
        )
    }

    /// Whether the backend moves the tensor's device memory directly.
    fn is_direct(&self, tensor: &Tensor) -> bool {
        self.0.device == Some(tensor.device().location())
    }

    /// Queues a collective from one device tensor to another, without the host.
    fn begin_direct(
        &self,
        operation: Operation,
        what: DirectCollective,
        send: Tensor,
        receive: Tensor,
    ) -> Result<Pending<Tensor>> {
        let mark = StreamEvent::record(send.device())?;
        // In bytes, so that a rank whose tensor is on another kind of device is detected as a mismatch.
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

    /// Queues a collective whose result has `length` elements.
    fn begin_between(
        &self,
        operation: Operation,
        what: DirectCollective,
        send: Tensor,
        length: usize,
        by_host: impl FnOnce(&mut Group, &[f32]) -> Result<Vec<f32>> + Send + 'static,
    ) -> Result<Pending<Tensor>> {
        memory::data_ptr(&send)?;
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
                let here = memory::to_host(&send)?;
                let values = by_host(group, &memory::floats(&here, OP)?)?;
                Ok(memory::to_device(&memory::tensor(values, length)?, send.device())?)
            },
        )
    }
}

/// Sums a tensor in place: directly on the CPU, else through a copy on the host.
fn sum(group: &mut Group, tensor: Tensor) -> Result<Tensor> {
    let here = memory::to_host(&tensor)?;
    let mut summed = Ok(());
    memory::update(&here, OP, |values| summed = group.all_reduce(values, Reduce::Sum))?;
    summed?;
    if !tensor.device().is_cpu() {
        memory::write_slice(&tensor, &memory::floats(&here, OP)?)?;
    }
    Ok(tensor)
}

#[cfg(test)]
mod tests;
