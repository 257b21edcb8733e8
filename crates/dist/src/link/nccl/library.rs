//! NCCL and CUDA's driver themselves.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUevent, CUevent_wait_flags};
use cudarc::driver::{
    CudaContext, CudaEvent, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, result,
};
use cudarc::nccl::{result as nccl, sys};

use candle_core::DeviceLocation;

use super::{Collective, Dtype, ID, Library, Progress, Span};
use crate::error::{Error, Result};
use crate::operation::Reduce;

/// What NCCL's configuration begins with.
const MAGIC: u32 = 0xcafe_beef;
/// How a stream waits for an event.
const WAIT: CUevent_wait_flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
/// What it takes for a field that says nothing.
const UNSAID: c_int = c_int::MIN;
/// The version of NCCL whose fields of the configuration are told of; later ones know them too.
const VERSION: u32 = 21_700;

/// The fields of NCCL's configuration up to version 2.17: later libraries read no more than they are told there is.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const std::ffi::c_char,
    split_share: c_int,
}

/// A GPU, the stream that collectives run on, and NCCL's communicator.
pub(crate) struct Cuda {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Recorded behind all that was queued.
    end: CudaEvent,
    communicator: sys::ncclComm_t,
    world_size: usize,
    sent: Option<CudaSlice<u8>>,
    received: Option<CudaSlice<u8>>,
}

fn refused(what: &'static str) -> impl Fn(nccl::NcclError) -> Error {
    move |error| Error::Nccl { what, why: format!("NCCL says {:?}", error.0) }
}

fn driver(what: &'static str) -> impl Fn(result::DriverError) -> Error {
    move |error| Error::Nccl { what, why: format!("CUDA says {error:?}") }
}

fn progress(
    status: Result<nccl::NcclStatus, nccl::NcclError>,
    what: &'static str,
) -> Result<Progress> {
    match status.map_err(refused(what))? {
        nccl::NcclStatus::InProgress => Ok(Progress::Underway),
        _ => Ok(Progress::Done),
    }
}

impl Cuda {
    /// The `device`th GPU that this process sees, for the thread that calls this.
    pub(crate) fn new(device: usize) -> Result<Self> {
        let context = CudaContext::new(device).map_err(driver("use this rank's GPU"))?;
        let stream = context.new_stream().map_err(driver("make a stream"))?;
        let end = context.new_event(None).map_err(driver("make an event"))?;
        let communicator = ptr::null_mut();
        Ok(Self { context, stream, end, communicator, world_size: 1, sent: None, received: None })
    }

    fn mark(&self) -> Result<()> {
        self.end.record(&self.stream).map_err(driver("mark the end of a collective"))
    }

    /// As many bytes as are wanted, in memory that is kept for the next time.
    fn room(&self, kept: Option<CudaSlice<u8>>, length: usize) -> Result<CudaSlice<u8>> {
        match kept {
            Some(kept) if kept.len() >= length => Ok(kept),
            _ => {
                let length = length.next_power_of_two();
                self.stream.alloc_zeros(length).map_err(driver("get memory of the GPU"))
            }
        }
    }
}

fn dtype(dtype: Dtype) -> sys::ncclDataType_t {
    match dtype {
        Dtype::F32 => sys::ncclDataType_t::ncclFloat32,
        Dtype::U8 => sys::ncclDataType_t::ncclUint8,
    }
}

fn reduce(how: Reduce) -> sys::ncclRedOp_t {
    match how {
        Reduce::Sum => sys::ncclRedOp_t::ncclSum,
        Reduce::Max => sys::ncclRedOp_t::ncclMax,
        Reduce::Min => sys::ncclRedOp_t::ncclMin,
    }
}

impl Library for Cuda {
    fn another(&self) -> Result<Self> {
        Self::new(self.context.ordinal())
    }

    fn unique_id(&self) -> Result<[u8; ID]> {
        let id = nccl::get_uniqueid().map_err(refused("draw an id"))?;
        Ok(id.internal.map(|byte| byte as u8))
    }

    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress> {
        self.world_size = world_size;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: VERSION,
            blocking: 0,
            cga_cluster_size: UNSAID,
            min_ctas: UNSAID,
            max_ctas: UNSAID,
            net_name: ptr::null(),
            split_share: UNSAID,
        };
        let mut unique = MaybeUninit::<sys::ncclUniqueId>::zeroed();
        // SAFETY: an id is 128 bytes and nothing else; the configuration begins as NCCL's does, and says how long it is.
        // Both are read before the call returns.
        let begun = unsafe {
            ptr::copy_nonoverlapping(id.as_ptr(), unique.as_mut_ptr().cast(), ID);
            nccl::comm_init_rank_config(
                &mut self.communicator,
                world_size as c_int,
                unique.assume_init(),
                rank as c_int,
                (&raw mut config).cast(),
            )
        };
        progress(begun, "join the other ranks")
    }

    fn state(&mut self) -> Result<Progress> {
        let mut state = sys::ncclResult_t::ncclSuccess;
        // SAFETY: the communicator was begun, and is not aborted: `NcclLink` asks for no state then.
        unsafe { sys::ncclCommGetAsyncError(self.communicator, &mut state) }
            .result()
            .map_err(refused("ask for the communicator's state"))?;
        progress(state.result(), "go on with the communicator")
    }

    fn device(&self) -> DeviceLocation {
        DeviceLocation::Cuda { gpu_id: self.context.ordinal() }
    }

    fn follow(&mut self, event: u64) -> Result<()> {
        if event == 0 {
            return Ok(());
        }
        let refused = driver("wait for what was queued before");
        self.context.bind_to_thread().map_err(&refused)?;
        let event = event as usize as CUevent;
        // SAFETY: whoever gives the event keeps it until the stream is idle, and it is one of this GPU.
        unsafe { result::stream::wait_event(self.stream.cu_stream(), event, WAIT) }.map_err(refused)
    }

    fn queue(&mut self, what: Collective, send: Span, receive: Span) -> Result<Progress> {
        let (from, to) =
            (send.address as usize as *const c_void, receive.address as usize as *mut c_void);
        let kind = dtype(send.dtype);
        let (communicator, stream) = (self.communicator, self.stream.cu_stream().cast());
        // SAFETY: the communicator has been joined; the spans are memory of this GPU, of the lengths that they tell,
        // which whoever asks keeps until the stream is idle.
        let queued = unsafe {
            match what {
                Collective::AllReduce(how) => {
                    nccl::all_reduce(from, to, send.length, kind, reduce(how), communicator, stream)
                }
                Collective::ReduceScatter => {
                    let sum = sys::ncclRedOp_t::ncclSum;
                    nccl::reduce_scatter(from, to, receive.length, kind, sum, communicator, stream)
                }
                Collective::AllGather => {
                    nccl::all_gather(from, to, send.length, kind, communicator, stream)
                }
                Collective::Broadcast { root } => {
                    let root = root as c_int;
                    nccl::broadcast(from, to, send.length, kind, root, communicator, stream)
                }
                Collective::AllToAll => {
                    let part = send.length / self.world_size;
                    let step = part * send.dtype.size();
                    nccl::group_start().map_err(refused("begin an exchange"))?;
                    for rank in 0..self.world_size {
                        let (from, to) = (from.byte_add(rank * step), to.byte_add(rank * step));
                        let peer = rank as c_int;
                        nccl::send(from, part, kind, peer, communicator, stream)
                            .and_then(|_| nccl::recv(to, part, kind, peer, communicator, stream))
                            .map_err(refused("queue an exchange"))?;
                    }
                    nccl::group_end()
                }
            }
        };
        progress(queued, "queue a collective")
    }

    fn is_idle(&mut self) -> Result<bool> {
        // A call that is under way has queued nothing yet that could be marked.
        self.mark()?;
        self.end.try_is_complete().map_err(driver("go on with a collective"))
    }

    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(Span, Span)> {
        let (kept_sent, kept_received) = (self.sent.take(), self.received.take());
        let mut from = self.room(kept_sent, sent.len().max(1))?;
        let mut to = self.room(kept_received, received)?;
        self.stream
            .memcpy_htod(sent, &mut from.slice_mut(..sent.len()))
            .map_err(driver("copy to the GPU"))?;
        let span = |address, length| Span { address, length, dtype: Dtype::U8 };
        let spans = (
            span(from.device_ptr(&self.stream).0, sent.len()),
            span(to.device_ptr_mut(&self.stream).0, received),
        );
        (self.sent, self.received) = (Some(from), Some(to));
        Ok(spans)
    }

    fn fetch(&mut self, received: &mut [u8]) -> Result<()> {
        let Some(from) = &self.received else { return Ok(()) };
        self.stream
            .memcpy_dtoh(&from.slice(..received.len()), received)
            .and_then(|()| self.stream.synchronize())
            .map_err(driver("copy from the GPU"))
    }

    fn abort(&mut self) {
        let communicator = std::mem::replace(&mut self.communicator, ptr::null_mut());
        if !communicator.is_null() {
            // SAFETY: it was begun, and nobody uses it any more: it is nobody's now.
            let _ = unsafe { nccl::comm_abort(communicator) };
        }
    }

    fn finalize(&mut self) -> Result<Progress> {
        // SAFETY: the communicator has been joined, and all of its collectives are done.
        progress(unsafe { nccl::comm_finalize(self.communicator) }, "end the communicator")
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let communicator = std::mem::replace(&mut self.communicator, ptr::null_mut());
        if !communicator.is_null() {
            // SAFETY: it was finalized; an aborted one is null.
            let _ = unsafe { nccl::comm_destroy(communicator) };
        }
    }
}
