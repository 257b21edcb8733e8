// NCCL between processes of one machine, over shared memory: each communicator maps a file in STUB_CUDA_FOLDER.
#include "stub.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REMOTE_ERROR = 6, ID_BYTES = 128, SLOT = 256 << 20, WAIT_US = 50 };

typedef enum { I8, U8, I32, U32, I64, U64, F16, F32, F64, BF16 } Type;
typedef enum { SUM, PRODUCT, MAX, MIN } Operation;

typedef struct {
    char bytes[ID_BYTES];
} Id;

// The barrier shared by all ranks: how many have arrived, and how many rounds are complete.
typedef struct {
    atomic_int arrived, rounds;
    char padding[4096 - 2 * sizeof(atomic_int)];
} Barrier;

typedef struct {
    int size, rank;
    Barrier* barrier;
    // SLOT bytes per rank.
    char* slots;
    atomic_bool aborted;
} Communicator;

static char* slot(const Communicator* ranks, int rank) { return ranks->slots + (size_t)rank * SLOT; }

static size_t bytes_of(Type type, size_t count) {
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return bytes[type] * count;
}

// STUB_NCCL_VERSION stands in for another version.
int ncclGetVersion(int* version) {
    const char* other = getenv("STUB_NCCL_VERSION");
    return *version = other ? atoi(other) : 22809, OK;
}
const char* ncclGetErrorString(int code) { return code == REMOTE_ERROR ? "remote process exited" : "stub error"; }
const char* ncclGetLastError(Communicator* ranks) { return ""; }

int ncclGetUniqueId(Id* id) {
    memset(id, 0, sizeof *id);
    const int random = open("/dev/urandom", O_RDONLY);
    const bool complete = read(random, id, 8) == 8;
    close(random);
    return complete ? OK : INVALID;
}

int ncclCommInitRankConfig(Communicator** made, int size, Id id, int rank, void* settings) {
    char path[4096];
    uint64_t number;
    memcpy(&number, &id, sizeof number);
    const char* folder = getenv("STUB_CUDA_FOLDER");
    snprintf(path, sizeof path, "%s/nccl-%016llx", folder ? folder : "/tmp", (unsigned long long)number);
    const int file = open(path, O_CREAT | O_RDWR, 0600);
    const size_t length = sizeof(Barrier) + (size_t)size * SLOT;
    if (file < 0 || ftruncate(file, (off_t)length)) return INVALID;
    Barrier* barrier = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (barrier == MAP_FAILED) return INVALID;
    *made = calloc(1, sizeof **made);
    (*made)->size = size, (*made)->rank = rank, (*made)->barrier = barrier, (*made)->slots = (char*)(barrier + 1);
    return OK;
}

int ncclCommGetAsyncError(Communicator* ranks, int* error) {
    return *error = ranks->aborted ? REMOTE_ERROR : OK, OK;
}
int ncclCommAbort(Communicator* ranks) {
    ranks->aborted = true;
    return OK;
}
int ncclCommFinalize(Communicator* ranks) { return OK; }
int ncclCommDestroy(Communicator* ranks) { return OK; }

static int wait_for_all(Communicator* ranks) {
    Barrier* barrier = ranks->barrier;
    const int rounds = barrier->rounds;
    if (++barrier->arrived == ranks->size) {
        barrier->arrived = 0;
        barrier->rounds++;
        return OK;
    }
    while (barrier->rounds == rounds) {
        if (ranks->aborted) return REMOTE_ERROR;
        usleep(WAIT_US);
    }
    return OK;
}

// Publishes this rank's data to all ranks.
static int publish(Communicator* ranks, const void* own, size_t bytes) {
    if (bytes > SLOT) invalid("collective too large for the stub");
    check_allocated(own, bytes);
    memcpy(slot(ranks, ranks->rank), own, bytes);
    return wait_for_all(ranks);
}

static float from_bf16(uint16_t number) {
    const uint32_t bits = (uint32_t)number << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static uint16_t to_bf16(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define REDUCED(a, b) \
    (operation == SUM ? (a) + (b) : operation == PRODUCT ? (a) * (b) : (operation == MAX) == ((a) > (b)) ? (a) : (b))
#define REDUCE(T)                                                                                    \
    for (size_t i = 0; i < count; i++) ((T*)all)[i] = (T)REDUCED(((T*)all)[i], ((const T*)one)[i]); \
    break

static void accumulate(void* all, const void* one, size_t count, Type type, Operation operation) {
    switch (type) {
        case I8: REDUCE(int8_t);
        case U8: REDUCE(uint8_t);
        case I32: REDUCE(int32_t);
        case U32: REDUCE(uint32_t);
        case I64: REDUCE(int64_t);
        case U64: REDUCE(uint64_t);
        case F32: REDUCE(float);
        case F64: REDUCE(double);
        case BF16:
            for (size_t i = 0; i < count; i++) {
                const float a = from_bf16(((uint16_t*)all)[i]), b = from_bf16(((const uint16_t*)one)[i]);
                ((uint16_t*)all)[i] = to_bf16(REDUCED(a, b));
            }
            break;
        default: invalid("data type not supported by the stub");
    }
}

// Reduces the data of all ranks from offset `first` on.
static int reduce(Communicator* ranks, void* to, size_t first, size_t count, Type type, Operation operation) {
    const size_t bytes = bytes_of(type, count);
    char* all = malloc(bytes + 1);
    memcpy(all, slot(ranks, 0) + first, bytes);
    for (int rank = 1; rank < ranks->size; rank++) accumulate(all, slot(ranks, rank) + first, count, type, operation);
    memcpy(to, all, bytes);
    free(all);
    return wait_for_all(ranks);
}

int ncclAllReduce(const void* from, void* to, size_t count, Type type, Operation operation, Communicator* ranks,
                  void* stream) {
    const int error = publish(ranks, from, bytes_of(type, count));
    return error ? error : reduce(ranks, to, 0, count, type, operation);
}

int ncclReduceScatter(const void* from, void* to, size_t count, Type type, Operation operation, Communicator* ranks,
                      void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = publish(ranks, from, bytes * (size_t)ranks->size);
    return error ? error : reduce(ranks, to, bytes * (size_t)ranks->rank, count, type, operation);
}

int ncclAllGather(const void* from, void* to, size_t count, Type type, Communicator* ranks, void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = publish(ranks, from, bytes);
    if (error) return error;
    for (int rank = 0; rank < ranks->size; rank++) memcpy((char*)to + (size_t)rank * bytes, slot(ranks, rank), bytes);
    return wait_for_all(ranks);
}

int ncclBroadcast(const void* from, void* to, size_t count, Type type, int root, Communicator* ranks, void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = publish(ranks, from, ranks->rank == root ? bytes : 0);
    if (error) return error;
    memmove(to, slot(ranks, root), bytes);
    return wait_for_all(ranks);
}

// Sends and receives of a group, executed when it ends.

typedef struct {
    bool sends;
    void* at;
    size_t bytes;
    int peer;
} Transfer;

// The header of a message in its sender's slot; one with peer -1 ends the list.
typedef struct {
    size_t bytes;
    long peer;
} Header;

static _Thread_local struct {
    Transfer transfers[1024];
    int count, depth;
    Communicator* ranks;
} group;

static Header* next(Header* header) {
    return (Header*)((char*)(header + 1) + (header->bytes + 15) / 16 * 16);
}

static void receive(const Communicator* ranks, const Transfer* transfer, int before) {
    Header* header = (Header*)slot(ranks, transfer->peer);
    while (header->peer >= 0 && (header->peer != ranks->rank || before-- > 0)) header = next(header);
    if (header->peer < 0 || header->bytes != transfer->bytes) invalid("receive without a matching send");
    memcpy(transfer->at, header + 1, transfer->bytes);
}

static int deliver(void) {
    Communicator* ranks = group.ranks;
    const int count = group.count;
    if (count == 0) return OK;
    group.count = 0;
    Header* header = (Header*)slot(ranks, ranks->rank);
    for (int i = 0; i < count; i++) {
        const Transfer* transfer = &group.transfers[i];
        if (!transfer->sends) continue;
        *header = (Header){transfer->bytes, transfer->peer};
        memcpy(header + 1, transfer->at, transfer->bytes);
        header = next(header);
    }
    *header = (Header){0, -1};
    const int error = wait_for_all(ranks);
    if (error) return error;
    for (int i = 0; i < count; i++) {
        const Transfer* transfer = &group.transfers[i];
        int before = 0;
        for (int j = 0; j < i; j++) before += !group.transfers[j].sends && group.transfers[j].peer == transfer->peer;
        if (!transfer->sends) receive(ranks, transfer, before);
    }
    return wait_for_all(ranks);
}

static int post(Transfer transfer, Communicator* ranks) {
    if (group.count == 1024) invalid("group too large for the stub");
    group.transfers[group.count++] = transfer;
    group.ranks = ranks;
    return group.depth ? OK : deliver();
}

int ncclGroupStart(void) { return group.depth++, OK; }
int ncclGroupEnd(void) { return --group.depth ? OK : deliver(); }
int ncclSend(const void* from, size_t count, Type type, int peer, Communicator* ranks, void* stream) {
    return post((Transfer){true, (void*)from, bytes_of(type, count), peer}, ranks);
}
int ncclRecv(void* to, size_t count, Type type, int peer, Communicator* ranks, void* stream) {
    return post((Transfer){false, to, bytes_of(type, count), peer}, ranks);
}
