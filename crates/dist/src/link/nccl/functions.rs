//! NCCL's functions. The library is loaded when ranks need it, so a program on one GPU starts without it.
#![allow(unsafe_code)]

use std::error::Error as _;
use std::ffi::{CStr, c_char, c_int, c_void};

use libloading::{Library, Symbol};

use super::{ID, NcclVersion};
use crate::error::{Error, Result};

/// File names, the one that programs are meant to load first.
const FILES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];
/// The first version with non-blocking communicators.
const OLDEST: NcclVersion = NcclVersion { major: 2, minor: 14, patch: 0 };

/// `ncclResult_t`.
pub(super) type Status = c_int;
/// `ncclSuccess`.
pub(super) const SUCCESS: Status = 0;
/// `ncclInProgress`.
pub(super) const IN_PROGRESS: Status = 7;
/// `ncclDataType_t` and `ncclRedOp_t`.
pub(super) const UINT8: c_int = 1;
pub(super) const FLOAT32: c_int = 7;
pub(super) const SUM: c_int = 0;
pub(super) const MAX: c_int = 2;
pub(super) const MIN: c_int = 3;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(super) struct UniqueId(pub(super) [u8; ID]);

/// `ncclComm_t`.
pub(super) type Comm = *mut c_void;
/// `cudaStream_t`.
pub(super) type Stream = *mut c_void;
type From = *const c_void;
type To = *mut c_void;

/// A struct of function pointers, and how to read each from the library.
macro_rules! functions {
    ($($field:ident = $name:ident($($argument:ty),*) -> $result:ty;)*) => {
        /// The functions by their names in `nccl.h`.
        pub(super) struct Functions {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn of(library: &Library) -> Result<Self> {
                // SAFETY: the signatures are those of `nccl.h` since `OLDEST`.
                unsafe { Ok(Self { $($field: *symbol(library, stringify!($name))?,)* }) }
            }
        }
    };
}

functions! {
    get_unique_id = ncclGetUniqueId(*mut UniqueId) -> Status;
    comm_init_rank_config = ncclCommInitRankConfig(*mut Comm, c_int, UniqueId, c_int, *mut c_void) -> Status;
    comm_get_async_error = ncclCommGetAsyncError(Comm, *mut Status) -> Status;
    comm_abort = ncclCommAbort(Comm) -> Status;
    comm_finalize = ncclCommFinalize(Comm) -> Status;
    comm_destroy = ncclCommDestroy(Comm) -> Status;
    all_reduce = ncclAllReduce(From, To, usize, c_int, c_int, Comm, Stream) -> Status;
    reduce_scatter = ncclReduceScatter(From, To, usize, c_int, c_int, Comm, Stream) -> Status;
    all_gather = ncclAllGather(From, To, usize, c_int, Comm, Stream) -> Status;
    broadcast = ncclBroadcast(From, To, usize, c_int, c_int, Comm, Stream) -> Status;
    group_start = ncclGroupStart() -> Status;
    group_end = ncclGroupEnd() -> Status;
    send = ncclSend(From, usize, c_int, c_int, Comm, Stream) -> Status;
    recv = ncclRecv(To, usize, c_int, c_int, Comm, Stream) -> Status;
    get_error_string = ncclGetErrorString(Status) -> *const c_char;
    get_last_error = ncclGetLastError(Comm) -> *const c_char;
}

impl Functions {
    /// Loads the library, once per process.
    ///
    /// # Errors
    /// [`Error::NoNccl`] if it is not found, [`Error::Nccl`] if it is too old or lacks a function.
    pub(super) fn load() -> Result<(Self, NcclVersion)> {
        load(&FILES)
    }

    /// [`Error::Nccl`] unless `status` is success or in progress.
    pub(super) fn check(&self, status: Status, what: &'static str) -> Result<Status> {
        if matches!(status, SUCCESS | IN_PROGRESS) {
            return Ok(status);
        }
        // SAFETY: NCCL accepts any code and a null communicator.
        let (name, last) = unsafe {
            ((self.get_error_string)(status), (self.get_last_error)(std::ptr::null_mut()))
        };
        let last = text(last);
        let details = if last.is_empty() { String::new() } else { format!(": {last}") };
        let why = format!("NCCL error {status}, {}{details}", text(name));
        Err(Error::Nccl { what, why })
    }
}

/// A message of NCCL, trimmed.
fn text(message: *const c_char) -> String {
    if message.is_null() {
        return String::new();
    }
    // SAFETY: NCCL returns terminated strings that it never frees.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().trim().to_owned()
}

#[cfg(feature = "nccl")]
impl NcclVersion {
    /// The version of the library that ranks on GPUs would use. Loads it.
    ///
    /// # Errors
    ///
    /// [`Error::NoNccl`](crate::Error::NoNccl) if there is none, [`Error::Nccl`](crate::Error::Nccl) if it is too old.
    pub fn installed() -> crate::Result<Self> {
        Functions::load().map(|(_, version)| version)
    }
}

/// [`Functions::load`] from the first of `files` that the dynamic linker finds.
fn load(files: &[&str]) -> Result<(Functions, NcclVersion)> {
    let mut faults = Vec::new();
    for file in files {
        // SAFETY: NCCL's initializers do nothing that Rust forbids, and it is never unloaded.
        match unsafe { Library::new(*file) } {
            Ok(library) => {
                let version = version(&library)?;
                let functions = Functions::of(&library)?;
                // Its threads may outlive the last communicator.
                std::mem::forget(library);
                return Ok((functions, version));
            }
            Err(fault) => faults.push(cause(&fault)),
        }
    }
    Err(Error::NoNccl { faults: faults.join("; "), searched: searched() })
}

/// Where the dynamic linker looks.
fn searched() -> String {
    match std::env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => format!("`LD_LIBRARY_PATH` (`{path}`)"),
        _ => "`LD_LIBRARY_PATH` (not set)".to_owned(),
    }
}

/// The dynamic linker's own message.
fn cause(fault: &libloading::Error) -> String {
    fault.source().map_or_else(|| fault.to_string(), ToString::to_string)
}

/// # Safety
/// `T` is the type of the symbol.
unsafe fn symbol<'a, T>(library: &'a Library, name: &str) -> Result<Symbol<'a, T>> {
    // SAFETY: as the caller says.
    unsafe { library.get(name) }.map_err(|fault| Error::Nccl {
        what: "use the NCCL library",
        why: format!("{}; install NCCL {OLDEST} or later", cause(&fault)),
    })
}

/// The version, checked before anything else is read from the library.
fn version(library: &Library) -> Result<NcclVersion> {
    let mut code = 0;
    // SAFETY: the signature is that of `nccl.h`.
    let get =
        unsafe { symbol::<unsafe extern "C" fn(*mut c_int) -> Status>(library, "ncclGetVersion")? };
    // SAFETY: it writes one integer.
    let status = unsafe { get(&raw mut code) };
    if status != SUCCESS {
        let why = format!("NCCL error {status}");
        return Err(Error::Nccl { what: "query NCCL's version", why });
    }
    let version = NcclVersion::of(code);
    if version < OLDEST {
        let why = format!("it is version {version}; install {OLDEST} or later");
        return Err(Error::Nccl { what: "use the NCCL library", why });
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fails(files: &[&str]) -> Error {
        load(files).err().unwrap()
    }

    #[test]
    fn a_missing_library_names_files_and_folders_and_what_to_install() {
        let error = fails(&["libnccl-none.so.2", "libnccl-none.so"]);
        assert!(matches!(error, Error::NoNccl { .. }), "{error:?}");
        let message = error.to_string();
        for part in
            ["libnccl-none.so.2: ", "libnccl-none.so: ", "`LD_LIBRARY_PATH`", "nvidia-nccl-cu"]
        {
            assert!(message.contains(part), "no {part}: {message}");
        }
    }

    #[test]
    fn a_library_without_nccls_functions_is_named_with_the_missing_function() {
        let message = fails(&["libm.so.6"]).to_string();
        assert!(message.contains("ncclGetVersion") && message.contains("2.14"), "{message}");
    }
}
