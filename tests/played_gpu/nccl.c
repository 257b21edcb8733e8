// NCCL between processes of this machine: collectives go through a file of each communicator, in the folder that
// PLAYED_GPU_FOLDER names.
#include "played.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

enum { REMOTE_ERROR = 6, ID_BYTES = 128, SLOT = 64 << 20, WAIT_US = 50 };

typedef enum { I8, U8, I32, U32, I64, U64, F16, F32, F64, BF16 } Type;
typedef enum { SUM, PRODUCT, MAX, MIN } Operation;

typedef struct {
    char bytes[ID_BYTES];
} Id;

// What the ranks share: who has come to the barrier, and how often all have.
typedef struct {
    atomic_int arrived, times;
    char padding[4096 - 2 * sizeof(atomic_int)];
} Meeting;

typedef struct {
    int size, rank;
    Meeting* meeting;
    // One of SLOT bytes a rank.
    char* slots;
    atomic_bool aborted;
} Communicator;

static char* slot(const Communicator* ranks, int rank) { return ranks->slots + (size_t)rank * SLOT; }

static size_t bytes_of(Type type, size_t count) {
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return bytes[type] * count;
}

int ncclGetUniqueId(Id* id) {
    memset(id, 0, sizeof *id);
    const int random = open("/dev/urandom", O_RDONLY);
    const bool drawn = read(random, id, 8) == 8;
    close(random);
    return drawn ? OK : INVALID;
}

int ncclCommInitRankConfig(Communicator** made, int size, Id id, int rank, void* settings) {
    char path[4096];
    uint64_t number;
    memcpy(&number, &id, sizeof number);
    const char* folder = getenv("PLAYED_GPU_FOLDER");
    snprintf(path, sizeof path, "%s/nccl-%016llx", folder ? folder : "/tmp", (unsigned long long)number);
    const int file = open(path, O_CREAT | O_RDWR, 0600);
    const size_t length = sizeof(Meeting) + (size_t)size * SLOT;
    if (file < 0 || ftruncate(file, (off_t)length)) return INVALID;
    Meeting* meeting = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (meeting == MAP_FAILED) return INVALID;
    *made = calloc(1, sizeof **made);
    (*made)->size = size, (*made)->rank = rank, (*made)->meeting = meeting, (*made)->slots = (char*)(meeting + 1);
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
    Meeting* meeting = ranks->meeting;
    const int times = meeting->times;
    if (++meeting->arrived == ranks->size) {
        meeting->arrived = 0;
        meeting->times++;
        return OK;
    }
    while (meeting->times == times) {
        if (ranks->aborted) return REMOTE_ERROR;
        usleep(WAIT_US);
    }
    return OK;
}

// Shows all ranks what this one gives.
static int show(Communicator* ranks, const void* own, size_t bytes) {
    if (bytes > SLOT) impossible("a collective that is too large to be played");
    must_be_held(own, bytes);
    memcpy(slot(ranks, ranks->rank), own, bytes);
    return wait_for_all(ranks);
}

static float wide(uint16_t number) {
    const uint32_t bits = (uint32_t)number << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

static uint16_t narrow(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

#define JOINED(a, b) \
    (operation == SUM ? (a) + (b) : operation == PRODUCT ? (a) * (b) : (operation == MAX) == ((a) > (b)) ? (a) : (b))
#define JOIN(T)                                                                                    \
    for (size_t i = 0; i < count; i++) ((T*)all)[i] = (T)JOINED(((T*)all)[i], ((const T*)one)[i]); \
    break

static void join(void* all, const void* one, size_t count, Type type, Operation operation) {
    switch (type) {
        case I8: JOIN(int8_t);
        case U8: JOIN(uint8_t);
        case I32: JOIN(int32_t);
        case U32: JOIN(uint32_t);
        case I64: JOIN(int64_t);
        case U64: JOIN(uint64_t);
        case F32: JOIN(float);
        case F64: JOIN(double);
        case BF16:
            for (size_t i = 0; i < count; i++) {
                const float a = wide(((uint16_t*)all)[i]), b = wide(((const uint16_t*)one)[i]);
                ((uint16_t*)all)[i] = narrow(JOINED(a, b));
            }
            break;
        default: impossible("numbers that are not played");
    }
}

// Joins what all ranks show from `first` bytes on.
static int reduce(Communicator* ranks, void* to, size_t first, size_t count, Type type, Operation operation) {
    const size_t bytes = bytes_of(type, count);
    char* all = malloc(bytes + 1);
    memcpy(all, slot(ranks, 0) + first, bytes);
    for (int rank = 1; rank < ranks->size; rank++) join(all, slot(ranks, rank) + first, count, type, operation);
    memcpy(to, all, bytes);
    free(all);
    return wait_for_all(ranks);
}

int ncclAllReduce(const void* from, void* to, size_t count, Type type, Operation operation, Communicator* ranks,
                  void* stream) {
    const int error = show(ranks, from, bytes_of(type, count));
    return error ? error : reduce(ranks, to, 0, count, type, operation);
}

int ncclReduceScatter(const void* from, void* to, size_t count, Type type, Operation operation, Communicator* ranks,
                      void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = show(ranks, from, bytes * (size_t)ranks->size);
    return error ? error : reduce(ranks, to, bytes * (size_t)ranks->rank, count, type, operation);
}

int ncclAllGather(const void* from, void* to, size_t count, Type type, Communicator* ranks, void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = show(ranks, from, bytes);
    if (error) return error;
    for (int rank = 0; rank < ranks->size; rank++) memcpy((char*)to + (size_t)rank * bytes, slot(ranks, rank), bytes);
    return wait_for_all(ranks);
}

int ncclBroadcast(const void* from, void* to, size_t count, Type type, int root, Communicator* ranks, void* stream) {
    const size_t bytes = bytes_of(type, count);
    const int error = show(ranks, from, ranks->rank == root ? bytes : 0);
    if (error) return error;
    memmove(to, slot(ranks, root), bytes);
    return wait_for_all(ranks);
}

// Sends and receipts of a group, which are made when it ends.

typedef struct {
    bool sends;
    void* at;
    size_t bytes;
    int peer;
} Letter;

// How a letter lies in its sender's slot; behind the last is one to nobody.
typedef struct {
    size_t bytes;
    long peer;
} Envelope;

static _Thread_local struct {
    Letter letters[1024];
    int count, depth;
    Communicator* ranks;
} group;

static Envelope* next(Envelope* envelope) {
    return (Envelope*)((char*)(envelope + 1) + (envelope->bytes + 15) / 16 * 16);
}

static void receive(const Communicator* ranks, const Letter* letter, int before) {
    Envelope* envelope = (Envelope*)slot(ranks, letter->peer);
    while (envelope->peer >= 0 && (envelope->peer != ranks->rank || before-- > 0)) envelope = next(envelope);
    if (envelope->peer < 0 || envelope->bytes != letter->bytes) impossible("a receipt without its send");
    memcpy(letter->at, envelope + 1, letter->bytes);
}

static int deliver(void) {
    Communicator* ranks = group.ranks;
    const int count = group.count;
    if (count == 0) return OK;
    group.count = 0;
    Envelope* envelope = (Envelope*)slot(ranks, ranks->rank);
    for (int i = 0; i < count; i++) {
        const Letter* letter = &group.letters[i];
        if (!letter->sends) continue;
        *envelope = (Envelope){letter->bytes, letter->peer};
        memcpy(envelope + 1, letter->at, letter->bytes);
        envelope = next(envelope);
    }
    *envelope = (Envelope){0, -1};
    const int error = wait_for_all(ranks);
    if (error) return error;
    for (int i = 0; i < count; i++) {
        const Letter* letter = &group.letters[i];
        int before = 0;
        for (int j = 0; j < i; j++) before += !group.letters[j].sends && group.letters[j].peer == letter->peer;
        if (!letter->sends) receive(ranks, letter, before);
    }
    return wait_for_all(ranks);
}

static int post(Letter letter, Communicator* ranks) {
    if (group.count == 1024) impossible("a group that is too large to be played");
    group.letters[group.count++] = letter;
    group.ranks = ranks;
    return group.depth ? OK : deliver();
}

int ncclGroupStart(void) { return group.depth++, OK; }
int ncclGroupEnd(void) { return --group.depth ? OK : deliver(); }
int ncclSend(const void* from, size_t count, Type type, int peer, Communicator* ranks, void* stream) {
    return post((Letter){true, (void*)from, bytes_of(type, count), peer}, ranks);
}
int ncclRecv(void* to, size_t count, Type type, int peer, Communicator* ranks, void* stream) {
    return post((Letter){false, to, bytes_of(type, count), peer}, ranks);
}
