//! Calls to NCCL and the CUDA driver.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{CUevent, CUevent_wait_flags, CUresult, cuStreamQuery};
use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DevicePtrMut, result};

use candle_core::DeviceLocation;

use super::functions::{
    Comm, FLOAT32, Functions, IN_PROGRESS, MAX, MIN, SUCCESS, SUM, Status, UINT8, UniqueId,
};
use super::{Collective, DeviceBuffer, Dtype, ID, NcclApi, Progress};
use crate::error::{Error, Result};
use crate::operation::Reduce;

/// The magic number of `ncclConfig_t`.
const MAGIC: u32 = 0xcafe_beef;
const WAIT: CUevent_wait_flags = CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
/// `NCCL_CONFIG_UNDEF_INT`.
const UNDEFINED: c_int = c_int::MIN;
/// The NCCL version of [`Config`]'s layout.
const VERSION: u32 = 21_700;

/// `ncclConfig_t` of NCCL 2.17. Later libraries read `size` bytes and take defaults for what they added since
/// `version`; earlier ones read the first fields, which are theirs.
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
    nccl: Arc<Functions>,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    communicator: Comm,
    world_size: usize,
    sent: Option<CudaSlice<u8>>,
    received: Option<CudaSlice<u8>>,
}

fn driver(what: &'static str) -> impl Fn(result::DriverError) -> Error {
    move |error| Error::Nccl { what, why: format!("CUDA error {error:?}") }
}

impl Cuda {
    /// Loads NCCL, and opens the GPU with index `device` for the calling thread.
    pub(crate) fn new(device: usize) -> Result<Self> {
        let (nccl, version) = Functions::load()?;
        tracing::debug!(%version, "loaded NCCL");
        Self::open(Arc::new(nccl), device)
    }

    fn open(nccl: Arc<Functions>, device: usize) -> Result<Self> {
        let context = CudaContext::new(device).map_err(driver("open this rank's GPU"))?;
        let stream = context.new_stream().map_err(driver("create a stream"))?;
        let communicator = ptr::null_mut();
        let (sent, received) = (None, None);
        Ok(Self { nccl, context, stream, communicator, world_size: 1, sent, received })
    }

    fn progress(&self, status: Status, what: &'static str) -> Result<Progress> {
        match self.nccl.check(status, what)? {
            IN_PROGRESS => Ok(Progress::InProgress),
            _ => Ok(Progress::Done),
        }
    }

    /// `buffer` if it has at least `length` bytes, else a new one.
    fn reserve(&self, buffer: Option<CudaSlice<u8>>, length: usize) -> Result<CudaSlice<u8>> {
        match buffer {
            Some(buffer) if buffer.len() >= length => Ok(buffer),
            _ => {
                let length = length.next_power_of_two();
                self.stream.alloc_zeros(length).map_err(driver("allocate GPU memory"))
            }
        }
    }
}

/// `ncclDataType_t`.
fn dtype(dtype: Dtype) -> c_int {
    match dtype {
        Dtype::F32 => FLOAT32,
        Dtype::U8 => UINT8,
    }
}

/// `ncclRedOp_t`.
fn reduce(how: Reduce) -> c_int {
    match how {
        Reduce::Sum => SUM,
        Reduce::Max => MAX,
        Reduce::Min => MIN,
    }
}

impl NcclApi for Cuda {
    fn duplicate(&self) -> Result<Self> {
        Self::open(Arc::clone(&self.nccl), self.context.ordinal())
    }

    fn unique_id(&self) -> Result<[u8; ID]> {
        let mut id = UniqueId([0; ID]);
        // SAFETY: it writes an id.
        let status = unsafe { (self.nccl.get_unique_id)(&raw mut id) };
        self.nccl.check(status, "generate a unique id")?;
        Ok(id.0)
    }

    fn join(&mut self, id: &[u8; ID], rank: usize, world_size: usize) -> Result<Progress> {
        self.world_size = world_size;
        let mut config = Config {
            size: size_of::<Config>(),
            magic: MAGIC,
            version: VERSION,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: ptr::null(),
            split_share: UNDEFINED,
        };
        // SAFETY: the configuration has the layout of NCCL's and states its size. It is read before the call returns.
        let begun = unsafe {
            (self.nccl.comm_init_rank_config)(
                &raw mut self.communicator,
                world_size as c_int,
                UniqueId(*id),
                rank as c_int,
                (&raw mut config).cast(),
            )
        };
        self.progress(begun, "initialize the communicator")
    }

    fn state(&mut self) -> Result<Progress> {
        let mut state = SUCCESS;
        // SAFETY: initialization of the communicator has started, and `NcclLink` never calls this after an abort.
        let status = unsafe { (self.nccl.comm_get_async_error)(self.communicator, &raw mut state) };
        self.nccl.check(status, "query the communicator's state")?;
        self.progress(state, "run the communicator")
    }

    fn device(&self) -> DeviceLocation {
        DeviceLocation::Cuda { gpu_id: self.context.ordinal() }
    }

    fn wait_event(&mut self, event: u64) -> Result<()> {
        if event == 0 {
            return Ok(());
        }
        let refused = driver("wait for an event");
        self.context.bind_to_thread().map_err(&refused)?;
        let event = event as usize as CUevent;
        // SAFETY: the caller keeps the event alive until the stream is idle, and the event belongs to this GPU.
        unsafe { result::stream::wait_event(self.stream.cu_stream(), event, WAIT) }.map_err(refused)
    }

    fn queue(
        &mut self,
        what: Collective,
        send: DeviceBuffer,
        receive: DeviceBuffer,
    ) -> Result<Progress> {
        let (from, to) =
            (send.address as usize as *const c_void, receive.address as usize as *mut c_void);
        let kind = dtype(send.dtype);
        let (communicator, stream) = (self.communicator, self.stream.cu_stream().cast());
        let nccl = &*self.nccl;
        // SAFETY: the communicator is initialized; the buffers are valid memory of this GPU that the caller keeps until
        // the stream is idle.
        let queued = unsafe {
            match what {
                Collective::AllReduce(how) => (nccl.all_reduce)(
                    from,
                    to,
                    send.length,
                    kind,
                    reduce(how),
                    communicator,
                    stream,
                ),
                Collective::ReduceScatter => {
                    (nccl.reduce_scatter)(from, to, receive.length, kind, SUM, communicator, stream)
                }
                Collective::AllGather => {
                    (nccl.all_gather)(from, to, send.length, kind, communicator, stream)
                }
                Collective::Broadcast { root } => {
                    let root = root as c_int;
                    (nccl.broadcast)(from, to, send.length, kind, root, communicator, stream)
                }
                Collective::AllToAll => {
                    let part = send.length / self.world_size;
                    let step = part * send.dtype.size();
                    nccl.check((nccl.group_start)(), "start an all-to-all")?;
                    for rank in 0..self.world_size {
                        let (from, to) = (from.byte_add(rank * step), to.byte_add(rank * step));
                        let peer = rank as c_int;
                        let sent = (nccl.send)(from, part, kind, peer, communicator, stream);
                        nccl.check(sent, "queue an all-to-all")?;
                        let received = (nccl.recv)(to, part, kind, peer, communicator, stream);
                        nccl.check(received, "queue an all-to-all")?;
                    }
                    (nccl.group_end)()
                }
            }
        };
        self.progress(queued, "queue a collective")
    }

    fn is_idle(&mut self) -> Result<bool> {
        let refused = driver("run a collective");
        self.context.bind_to_thread().map_err(&refused)?;
        // A query adds nothing to the stream. Recording an event at every poll would fill the launch queue behind a
        // collective that waits for a failed rank, and then block.
        // SAFETY: the stream lives as long as `self`.
        match unsafe { cuStreamQuery(self.stream.cu_stream()) } {
            CUresult::CUDA_ERROR_NOT_READY => Ok(false),
            result => result.result().map(|()| true).map_err(refused),
        }
    }

    fn stage(&mut self, sent: &[u8], received: usize) -> Result<(DeviceBuffer, DeviceBuffer)> {
        let (send_buffer, receive_buffer) = (self.sent.take(), self.received.take());
        let mut from = self.reserve(send_buffer, sent.len().max(1))?;
        let mut to = self.reserve(receive_buffer, received)?;
        self.stream
            .memcpy_htod(sent, &mut from.slice_mut(..sent.len()))
            .map_err(driver("copy to the GPU"))?;
        let buffer = |address, length| DeviceBuffer { address, length, dtype: Dtype::U8 };
        let buffers = (
            buffer(from.device_ptr(&self.stream).0, sent.len()),
            buffer(to.device_ptr_mut(&self.stream).0, received),
        );
        (self.sent, self.received) = (Some(from), Some(to));
        Ok(buffers)
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
            // SAFETY: initialization has started, and the pointer was just cleared, so it is not used again.
            let _ = unsafe { (self.nccl.comm_abort)(communicator) };
        }
    }

    fn finalize(&mut self) -> Result<Progress> {
        // SAFETY: the communicator is initialized, and all its collectives are done.
        let status = unsafe { (self.nccl.comm_finalize)(self.communicator) };
        self.progress(status, "finalize the communicator")
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        let communicator = std::mem::replace(&mut self.communicator, ptr::null_mut());
        if !communicator.is_null() {
            // SAFETY: the communicator was finalized; after an abort it is null.
            let _ = unsafe { (self.nccl.comm_destroy)(communicator) };
        }
    }
}
