// CUDA's driver and runtime.
#include "played.h"

#include <pthread.h>
#include <stdatomic.h>

typedef uint64_t Address;
typedef struct {
    unsigned x, y, z;
} Size;

static atomic_long allocations, frees, bytes, peak, launches;

// What a test asks about when the process ends: a line in the file that PLAYED_GPU_TOLD names.
__attribute__((destructor)) static void tell(void) {
    const char* path = getenv("PLAYED_GPU_TOLD");
    FILE* told = path ? fopen(path, "a") : NULL;
    if (!told) return;
    fprintf(told, "{\"allocations\": %ld, \"frees\": %ld, \"launches\": %ld}\n", allocations, frees, launches);
    fclose(told);
}

// Devices and contexts: four of one kind, or as many as CUDA_VISIBLE_DEVICES names.

static int devices(void) {
    const char* visible = getenv("CUDA_VISIBLE_DEVICES");
    int count = visible ? 1 : 4;
    for (; visible && *visible; visible++) count += *visible == ',';
    return count;
}

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
    enum { PROCESSORS = 16, CAPABILITY_MAJOR = 75, CAPABILITY_MINOR = 76 };
    *value = attribute == PROCESSORS ? 132 : attribute == CAPABILITY_MAJOR ? 9 : attribute == CAPABILITY_MINOR ? 0 : 1;
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
int cuGetErrorString(int code, const char** words) { return *words = "played", OK; }

// Streams and events: all is done when it is asked for.

int cuStreamCreate(void** stream, unsigned flags) { return make(stream); }
int cuStreamDestroy_v2(void* stream) { return drop(stream); }
int cuStreamSynchronize(void* stream) { return OK; }
int cuStreamWaitEvent(void* stream, void* event, unsigned flags) { return OK; }
int cuStreamIsCapturing(void* stream, int* status) { return *status = 0, OK; }
int cuEventCreate(void** event, unsigned flags) { return make(event); }
int cuEventDestroy_v2(void* event) { return drop(event); }
int cuEventRecord(void* event, void* stream) { return OK; }
int cuEventQuery(void* event) { return OK; }

// Memory: zeros of the host's, in pieces that are known.

typedef struct {
    Address at;
    size_t bytes;
} Piece;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static Piece* pieces;
static size_t held, room;

static int take(Address* address, size_t size) {
    void* memory = calloc(size ? size : 1, 1);
    if (!memory) return 2;
    pthread_mutex_lock(&lock);
    if (held == room) pieces = realloc(pieces, (room = 2 * room + 64) * sizeof *pieces);
    pieces[held++] = (Piece){(Address)memory, size};
    pthread_mutex_unlock(&lock);
    allocations++;
    const long now = bytes += (long)size;
    if (now > peak) peak = now;
    return *address = (Address)memory, OK;
}

static int give(Address address) {
    if (!address) return OK;
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < held && pieces[i].at != address) i++;
    if (i == held) impossible("memory that is given back is not held");
    bytes -= (long)pieces[i].bytes;
    pieces[i] = pieces[--held];
    pthread_mutex_unlock(&lock);
    frees++;
    return drop((void*)address);
}

void must_be_held(const void* at, size_t size) {
    const Address first = (Address)at;
    pthread_mutex_lock(&lock);
    size_t i = 0;
    while (i < held && !(first >= pieces[i].at && first + size <= pieces[i].at + pieces[i].bytes)) i++;
    if (i == held && size > 0) impossible("memory that is not held is read or written");
    pthread_mutex_unlock(&lock);
}

int cuMemAlloc_v2(Address* address, size_t size) { return take(address, size); }
int cuMemAllocAsync(Address* address, size_t size, void* stream) { return take(address, size); }
int cuMemFree_v2(Address address) { return give(address); }
int cuMemFreeAsync(Address address, void* stream) { return give(address); }
int cuMemGetInfo_v2(size_t* left, size_t* total) {
    return *total = (size_t)80 << 30, *left = *total - (size_t)bytes, OK;
}
int cuDeviceGetMemPool(void** found, int device) { return *found = &pool, OK; }
int cuMemPoolSetAttribute(void* of, int attribute, void* value) { return OK; }
int cuMemPoolGetAttribute(void* of, int attribute, void* value) {
    enum { USED_HIGH = 8 };
    return *(uint64_t*)value = (uint64_t)(attribute == USED_HIGH ? peak : bytes), OK;
}

static int copy(void* to, const void* from, size_t size) { return memmove(to, from, size), OK; }

int cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t size, void* stream) {
    must_be_held((void*)to, size);
    return copy((void*)to, from, size);
}
int cuMemcpyDtoHAsync_v2(void* to, Address from, size_t size, void* stream) {
    must_be_held((void*)from, size);
    return copy(to, (const void*)from, size);
}
int cuMemcpyDtoDAsync_v2(Address to, Address from, size_t size, void* stream) {
    must_be_held((void*)to, size), must_be_held((void*)from, size);
    return copy((void*)to, (const void*)from, size);
}
int cuMemcpyPeerAsync(Address to, void* there, Address from, void* here, size_t size, void* stream) {
    return copy((void*)to, (const void*)from, size);
}
int cuMemsetD8Async(Address to, unsigned char value, size_t size, void* stream) {
    must_be_held((void*)to, size);
    return memset((void*)to, value, size), OK;
}

// Kernels.

static int launch(Size grid, Size block) {
    const unsigned long threads = (unsigned long)block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) impossible("a grid that no GPU takes");
    if (!threads || threads > 1024) impossible("a block that no GPU takes");
    launches++;
    return OK;
}

int cuModuleLoad(void** module, const char* path) { return make(module); }
int cuModuleLoadData(void** module, const void* image) { return make(module); }
int cuModuleUnload(void* module) { return drop(module); }
int cuModuleGetFunction(void** function, void* module, const char* name) { return *function = module, OK; }
int cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void* stream, void** arguments, void** more) {
    return launch((Size){gx, gy, gz}, (Size){bx, by, bz});
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
    return launch(grid, block);
}
int __cudaLaunchKernel_ptsz(void* kernel, Size grid, Size block, void** arguments, size_t shared, void* stream) {
    return launch(grid, block);
}
void** __cudaRegisterFatBinary(void* binary) {
    static void* handle;
    return &handle;
}
void __cudaRegisterFatBinaryEnd(void** handle) {}
void __cudaUnregisterFatBinary(void** handle) {}
void __cudaRegisterFunction(void** handle, const char* host, char* device, const char* name, int limit, void* a, void* b,
                            void* c, void* d, int* e) {}
void __cudaRegisterVar(void** handle, char* host, char* device, const char* name, int outside, size_t size, int constant,
                       int global) {}
int cudaFuncSetAttribute(const void* function, int attribute, int value) { return OK; }
int cudaGetDevice(int* device) { return *device = 0, OK; }
int cudaGetLastError(void) { return OK; }
const char* cudaGetErrorString(int code) { return "played"; }
int cudaMemsetAsync(void* to, int value, size_t size, void* stream) {
    must_be_held(to, size);
    return memset(to, value, size), OK;
}
int cudaRuntimeGetVersion(int* version) { return *version = 13000, OK; }
