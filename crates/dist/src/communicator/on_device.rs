//! The collectives on memory of GPUs, and the ranks that can do them.

use super::Communicator;
use crate::device::DeviceBuffer;
use crate::error::{Error, Result};
use crate::link::nccl::Collective;
use crate::operation::{Operation, Reduce};
use crate::pending::Pending;

/// # Collectives on GPUs
///
/// For ranks of [`Communicator::nccl`]. Buffers are given away and come back when they may be used again. NCCL makes
/// sums in an order of its own: their bits depend on the number of ranks and on how the GPUs are connected.
impl Communicator {
    /// Ranks over NCCL, one a process and a GPU, which is the `device`th that this process sees. They come together at
    /// `meeting`, where rank 0 listens.
    ///
    /// # Errors
    ///
    /// Rank 0 cannot listen there, the ranks cannot reach it or do not fit together, or NCCL cannot join them.
    #[cfg(feature = "nccl")]
    pub fn nccl(
        place: &crate::Place,
        meeting: &crate::Meeting,
        device: usize,
        options: &crate::Options,
    ) -> Result<Self> {
        use std::sync::Arc;

        use crate::link::nccl::{Cuda, ID, NcclLink, unique_id};
        use crate::plane::Client;
        use crate::watch::Watch;

        let watch = Arc::new(Watch::new(place.rank, &place.host));
        let (place, meeting, own) = (place.clone(), meeting.clone(), options.clone());
        Self::start(&watch, place.world_size, options.clone(), move |watch| {
            let listener = (place.rank == 0).then(|| crate::plane::listen(meeting.address));
            let listener = listener.transpose()?;
            let shared = Arc::clone(&watch);
            let client =
                Client::join(&meeting, listener, place.world_size, &place.host, &own, shared)?;
            let joined = Cuda::new(device).and_then(|cuda| {
                let id = if place.rank == 0 { unique_id()?.to_vec() } else { Vec::new() };
                let id = client.share(id, own.join_within)?;
                let id = <[u8; ID]>::try_from(id).map_err(|id| Error::Nccl {
                    what: "learn NCCL's id from rank 0",
                    why: format!("it handed round {} bytes, not {ID}", id.len()),
                })?;
                NcclLink::join(cuda, &id, place.world_size, own.join_within, watch)
            });
            // The others wait for this rank, and are told why in vain.
            let link = joined.map_err(|error| match &error {
                Error::Lost(_) => error,
                _ => client.fail(&error.to_string()),
            })?;
            Ok((Box::new(link) as _, client))
        })
    }

    /// Number by number the sum, the greatest or the least over all ranks, in place.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)` on every rank.
    ///
    /// # Errors
    ///
    /// As of all collectives.
    pub fn all_reduce_on_device(
        &self,
        buffer: DeviceBuffer,
        how: Reduce,
    ) -> Result<Pending<DeviceBuffer>> {
        self.in_place(Operation::AllReduce(how), Collective::AllReduce(how), 0, buffer)
    }

    /// The numbers of rank `root`, in place.
    ///
    /// # Shapes
    ///
    /// `(n)` on every rank gives `(n)`.
    ///
    /// # Errors
    ///
    /// There is no rank `root`, and as of all collectives.
    pub fn broadcast_on_device(
        &self,
        buffer: DeviceBuffer,
        root: usize,
    ) -> Result<Pending<DeviceBuffer>> {
        self.check_root(Operation::Broadcast, root)?;
        self.in_place(Operation::Broadcast, Collective::Broadcast { root }, root, buffer)
    }

    /// This rank's part of the sums over all ranks, the `rank`th of equal parts, in `part`.
    ///
    /// # Shapes
    ///
    /// `(world_size × n)` and a part of `(n)`.
    ///
    /// # Errors
    ///
    /// The buffers do not fit together, and as of all collectives.
    pub fn reduce_scatter_on_device(
        &self,
        whole: DeviceBuffer,
        part: DeviceBuffer,
    ) -> Result<Pending<(DeviceBuffer, DeviceBuffer)>> {
        self.check_part(Operation::ReduceScatter, &part, &whole)?;
        self.between(Operation::ReduceScatter, Collective::ReduceScatter, whole, part)
    }

    /// The numbers of all ranks, end to end, in `whole`.
    ///
    /// # Shapes
    ///
    /// A part of `(n)` and `(world_size × n)`.
    ///
    /// # Errors
    ///
    /// The buffers do not fit together, and as of all collectives.
    pub fn all_gather_on_device(
        &self,
        part: DeviceBuffer,
        whole: DeviceBuffer,
    ) -> Result<Pending<(DeviceBuffer, DeviceBuffer)>> {
        self.check_part(Operation::AllGather, &part, &whole)?;
        self.between(Operation::AllGather, Collective::AllGather, part, whole)
    }

    fn in_place(
        &self,
        operation: Operation,
        what: Collective,
        root: usize,
        buffer: DeviceBuffer,
    ) -> Result<Pending<DeviceBuffer>> {
        // In bytes, so that ranks with other types of numbers are found.
        let call = self.call(operation, buffer.length * buffer.dtype.size(), root);
        self.begin(
            call,
            buffer,
            |buffer| buffer,
            move |group, _, buffer| {
                group.on_device(what, &buffer, &buffer)?;
                Ok(buffer)
            },
        )
    }

    fn between(
        &self,
        operation: Operation,
        what: Collective,
        send: DeviceBuffer,
        receive: DeviceBuffer,
    ) -> Result<Pending<(DeviceBuffer, DeviceBuffer)>> {
        if self.0.others.is_none() {
            // A rank that is alone has no library to copy with.
            return Err(Error::HostOnly);
        }
        let call = self.call(operation, send.length * send.dtype.size(), 0);
        self.begin(
            call,
            (send, receive),
            |both| both,
            move |group, _, (send, receive)| {
                group.on_device(what, &send, &receive)?;
                Ok((send, receive))
            },
        )
    }

    fn check_part(
        &self,
        operation: Operation,
        part: &DeviceBuffer,
        whole: &DeviceBuffer,
    ) -> Result<()> {
        let world_size = self.world_size();
        if part.dtype == whole.dtype && Some(whole.length) == part.length.checked_mul(world_size) {
            return Ok(());
        }
        let why =
            "the whole must be of the part's type, and as many times as long as there are ranks";
        Err(Error::Length { operation, length: whole.length, world_size, why })
    }
}
