// The CUDA driver and runtime.
#include "stub.h"

#include <pthread.h>
#include <stdatomic.h>

typedef uint64_t Address;
typedef struct {
    unsigned x, y, z;
} Size;

static atomic_long allocations, frees, bytes, peak, launches;

// A kernel by its host function or driver handle. Entries are never freed.
typedef struct Kernel {
    const void* function;
    const char* name;
    atomic_long launches;
    atomic_long limits;   // how often its limit of dynamic shared memory was set
    atomic_int allowed;   // dynamic shared memory in bytes
    struct Kernel* next;
} Kernel;

// Bytes of shared memory of an H100: of a kernel by default, in all, and of what each kernel declares itself.
enum { SHARED_BY_DEFAULT = 48 << 10, MAX_SHARED = 227 << 10, STATIC_SHARED = 1 << 10 };

static pthread_mutex_t kernels_lock = PTHREAD_MUTEX_INITIALIZER;
static Kernel* kernels;

// Registers a kernel. Without a host function, the entry itself is the driver's handle.
static Kernel* register_kernel(const void* function, const char* name) {
    Kernel* kernel = calloc(1, sizeof *kernel);
    if (!kernel) return NULL;
    kernel->function = function ? function : kernel;
    kernel->name = strdup(name);
    kernel->allowed = SHARED_BY_DEFAULT;
    pthread_mutex_lock(&kernels_lock);
    kernel->next = kernels;
    kernels = kernel;
    pthread_mutex_unlock(&kernels_lock);
    return kernel;
}

static Kernel* find_kernel(const void* function) {
    pthread_mutex_lock(&kernels_lock);
    Kernel* kernel = kernels;
    while (kernel && kernel->function != function) kernel = kernel->next;
    pthread_mutex_unlock(&kernels_lock);
    return kernel;
}

// At exit, appends a JSON line with the counters to the file that STUB_CUDA_COUNTERS names, including each kernel's
// launches and how often its limit of shared memory was set.
__attribute__((destructor)) static void write_counters(void) {
    const char* path = getenv("STUB_CUDA_COUNTERS");
    FILE* file = path ? fopen(path, "a") : NULL;
    if (!file) return;
    fprintf(file, "{\"allocations\": %ld, \"frees\": %ld, \"launches\": %ld, \"kernels\": [", allocations, frees, launches);
    const char* separator = "";
    for (Kernel* kernel = kernels; kernel; kernel = kernel->next) {
        if (kernel->launches == 0) continue;
        fprintf(file, "%s[\"%s\", %ld, %ld]", separator, kernel->name, kernel->launches, kernel->limits);
        separator = ", ";
    }
    fprintf(file, "]}\n");
    fclose(file);
}

// Devices and contexts: four identical devices, or as many as CUDA_VISIBLE_DEVICES lists.

static int devices(void) {
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    int count = visible ? 1 : 4;
    for (; visible && *visible; visible++) count += *visible == ',';
    return count;
}

// With STUB_CUDA_NO_POOLS, the devices have no memory pools.
static int has_pools(void) { return !getenv("STUB_CUDA_NO_POOLS"); }

int cuInit(unsigned flags) { return OK; }
int cuDriverGetVersion(int* version) { return *version = 13000, OK; }
int cuDeviceGetCount(int* count) { return *count = devices(), OK; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, ordinal < devices() ? OK : NO_SUCH_DEVICE; }
int cuDeviceGetName(char* name, int length, int device) {
    snprintf(name, (size_t)length, "NVIDIA H100 80GB HBM3");
    return OK;
}
int cuDeviceTotalMem_v2(size_t* total, int device) { return *total = (size_t)80 << 30, OK; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    enum { PROCESSORS = 16, L2_BYTES = 38, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76, MEMORY_POOLS = 115 };
    *value = attribute == PROCESSORS          ? 132
             : attribute == L2_BYTES          ? 50 << 20
             : attribute == CAPABILITY_MAJOR  ? 9
             : attribute == CAPABILITY_MINOR  ? 0
             : attribute == MEMORY_POOLS      ? has_pools()
                                              : 1;
    return OK;
}

static char context, pool;
static _Thread_local void* current;

int cuDevicePrimaryCtxRetain(void** made, int device) { return *made = &context, OK; }
int cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
int cuCtxGetCurrent(void** found) { return *found = current, OK; }
int cuCtxSetCurrent(void* wanted) { return current = wanted, OK; }
int cuCtxDestroy_v2(void* gone) { return OK; }
int cuCtxSynchronize(void) { return OK; }
int cuGetErrorString(int code, const char** message) { return *message = "stub", OK; }

// Streams and events: all work completes synchronously. With STUB_CUDA_BUSY=N, N queries of a thread say "not ready" before
// one says "ready", and the launch queue has room for 1,024 events until then: recording another would block.

static _Thread_local int unfinished, polls;

static int queries(void) {
    const char* busy = getenv("STUB_CUDA_BUSY");
    if (busy && ++polls <= atoi(busy)) return NOT_READY;
    return unfinished = polls = 0, OK;
}
static int record(void) {
    if (getenv("STUB_CUDA_BUSY") && ++unfinished > 1024) invalid("the launch queue is full, so that recording an event blocks");
    return OK;
}

int cuStreamCreate(void** stream, unsigned flags) { return make(stream); }
int cuStreamDestroy_v2(void* stream) { return drop(stream); }
int cuStreamSynchronize(void* stream) { return unfinished = 0, OK; }
int cuStreamQuery(void* stream) { return queries(); }
int cuStreamWaitEvent(void* stream, void* event, unsigned flags) { return OK; }
int cuStreamIsCapturing(void* stream, int* status) { return *status = 0, OK; }
int cuEventCreate(void** event, unsigned flags) { return make(event); }
int cuEventDestroy_v2(void* event) { return drop(event); }
int cuEventRecord(void* event, void* stream) { return record(); }
int cuEventQuery(void* event) { return queries(); }
int cuEventSynchronize(void* event) { return OK; }
// A microsecond between any two events: kernels take no time here.
int cuEventElapsedTime_v2(float* milliseconds, void* first, void* second) { return *milliseconds = 1e-3f, OK; }

// Memory: zeroed host memory, with all allocations tracked.

typedef struct {
    Address at;
    size_t bytes;
} Allocation;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Allocation* live;
static size_t count, capacity;

static int allocate(Address* address, size_t size) {
    if (!size) return INVALID;
    void* memory = calloc(size, 1);
    if (!memory) return 2;
    pthread_mutex_lock(&lock);
    if (count == capacity) live = realloc(live, (capacity = 2 * capacity + 64) * sizeof *live);
    live[count++] = (Allocation){(Address)memory, size};
    pthread_mutex_unlock(&lock);
    allocations++;
    const long now = bytes += (long)size;
    if (now > peak) peak = now;
    return *address = (Address)memory, OK;
}

static int release(Address address) {
    if (!address) return OK;
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < count && live[i].at != address) i++;
    if (i == count) invalid("free of memory that is not allocated");
    bytes -= (long)live[i].bytes;
    live[i] = live[--count];
    pthread_mutex_unlock(&lock);
    frees++;
    return drop((void*)address);
}

void check_allocated(const void* at, size_t size) {
    const Address first = (Address)at;
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < count && !(first >= live[i].at && first + size <= live[i].at + live[i].bytes)) i++;
    if (i == count && size > 0) invalid("access to memory that is not allocated");
    pthread_mutex_unlock(&lock);
}

int cuMemAlloc_v2(Address* address, size_t size) { return allocate(address, size); }
int cuMemAllocAsync(Address* address, size_t size, void* stream) {
    return has_pools() ? allocate(address, size) : NOT_SUPPORTED;
}
int cuMemFree_v2(Address address) { return release(address); }
int cuMemFreeAsync(Address address, void* stream) { return has_pools() ? release(address) : NOT_SUPPORTED; }
int cuMemGetInfo_v2(size_t* left, size_t* total) {
    return *total = (size_t)80 << 30, *left = *total - (size_t)bytes, OK;
}
int cuDeviceGetMemPool(void** found, int device) { return *found = &pool, has_pools() ? OK : NOT_SUPPORTED; }
int cuMemPoolSetAttribute(void* of, int attribute, void* value) { return OK; }
int cuMemPoolGetAttribute(void* of, int attribute, void* value) {
    enum { USED_HIGH = 8 };
    return *(uint64_t*)value = (uint64_t)(attribute == USED_HIGH ? peak : bytes), OK;
}

static int copy(void* to, const void* from, size_t size) { return memmove(to, from, size), OK; }

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* stream) {
    check_allocated((void*)to, size);
    return copy((void*)to, from, size);
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* stream) {
    check_allocated((void*)from, size);
    return copy(to, (const void*)from, size);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, void* stream) {
    check_allocated((void*)to, size), check_allocated((void*)from, size);
    return copy((void*)to, (const void*)from, size);
}
int cuMemcpyPeerAsync(Address to, void* there, Address from, void* here, size_t size, void* stream) {
    return copy((void*)to, (const void*)from, size);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t size, void* stream) {
    check_allocated((void*)to, size);
    return memset((void*)to, value, size), OK;
}

// Kernels.

static int launch(const void* function, Size grid, Size block, size_t shared) {
    const unsigned long threads = (unsigned long)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) invalid("invalid grid size");
    if (!threads || threads > 1024) invalid("invalid block size");
    Kernel* const kernel = find_kernel(function);
    if (shared > (size_t)(kernel ? kernel->allowed : SHARED_BY_DEFAULT)) invalid("too much dynamic shared memory");
    launches++;
    if (kernel) kernel->launches++;
    return OK;
}

int cuModuleLoad(void** module, const char* path) { return make(module); }
int cuModuleLoadData(void** module, const void* image) { return make(module); }
int cuModuleUnload(void* module) { return drop(module); }
int cuModuleGetFunction(void** function, void* module, const char* name) {
    return *function = register_kernel(NULL, name), *function ? OK : INVALID;
}
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** more) {
    return launch(function, (Size){gx, gy, gz}, (Size){bx, by, bz}, shared);
}

static _Thread_local struct {
    Size grid, block;
    size_t shared;
    void* stream;
} configured;

unsigned __cudaPushCallConfiguration(Size grid, Size block, size_t shared, void* stream) {
    configured.grid = grid, configured.block = block, configured.shared = shared, configured.stream = stream;
    return OK;
}
unsigned __cudaPopCallConfiguration(Size* grid, Size* block, size_t* shared, void* stream) {
    *grid = configured.grid, *block = configured.block, *shared = configured.shared;
    return *(void**)stream = configured.stream, OK;
}
int __cudaGetKernel(void** kernel, const void* function) { return *kernel = (void*)function, OK; }
int __cudaLaunchKernel(void* kernel, Size grid, Size block, void** arguments, size_t shared, void* stream) {
    return launch(kernel, grid, block, shared);
}
int __cudaLaunchKernel_ptsz(void* kernel, Size grid, Size block, void** arguments, size_t shared, void* stream) {
    return launch(kernel, grid, block, shared);
}
void** __cudaRegisterFatBinary(void* binary) {
    static void* handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void** handle) {}
void __cudaUnregisterFatBinary(void** handle) {}
void __cudaRegisterFunction(void** handle, const char* host, char* device, const char* name, int limit, void* a, void* b,
                            void* c, void* d, int* e) {
    register_kernel(host, name);
}
void __cudaRegisterVar(void** handle, char* host, char* device, const char* name, int outside, size_t size, int constant,
                       int global) {}
int cudaFuncSetAttribute(const void* function, int attribute, int value) {
    enum { MAX_DYNAMIC_SHARED = 8 };
    Kernel* const kernel = find_kernel(function);
    if (!kernel || attribute != MAX_DYNAMIC_SHARED || value > MAX_SHARED - STATIC_SHARED) return INVALID;
    kernel->limits++;
    kernel->allowed = value;
    return OK;
}
// The first of the attributes is static shared memory; the program reads no other.
int cudaFuncGetAttributes(size_t* attributes, const void* function) { return *attributes = STATIC_SHARED, OK; }
int cudaDeviceGetAttribute(int* value, int attribute, int device) {
    enum { SHARED_OPTIN = 97 };
    return *value = MAX_SHARED, attribute == SHARED_OPTIN ? OK : INVALID;
}
int cudaGetDevice(int* device) { return *device = 0, OK; }
int cudaGetLastError(void) { return OK; }
const char* cudaGetErrorString(int code) { return "stub"; }
int cudaMemsetAsync(void* to, int value, size_t size, void* stream) {
    check_allocated(to, size);
    return memset(to, value, size), OK;
}
int cudaRuntimeGetVersion(int* version) { return *version = 13000, OK; }
