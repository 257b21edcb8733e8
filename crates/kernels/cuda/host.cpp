// CPU emulation of CUDA (host.h): one fiber per thread.

#include "host.h"
#include "host_mma.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <set>
#include <ucontext.h>
#include <vector>

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {
namespace {

constexpr int LANES = 32;
constexpr unsigned MAX_THREADS = 1024;
constexpr size_t MAX_SHARED = 227 * 1024;
constexpr size_t SHARED_BY_DEFAULT = 48 * 1024;
constexpr size_t STACK = 128 * 1024;
constexpr int INVALID_VALUE = 1, INVALID_CONFIGURATION = 9;

enum class State { Ready, AtBarrier, AtExchange, Done };

// Execution order of the threads of a block, and of blocks.
enum Order { ASCENDING = 0, DESCENDING = 1, ALTERNATING = 2 };

// An asynchronous copy.
struct Copy {
    void* to;
    const void* from;
    unsigned group;
};

struct Fiber {
    ucontext_t first;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool started = false;
    State state = State::Done;
    unsigned mask = 0;
    std::vector<Copy> copies; // asynchronous ones in flight, oldest first
    unsigned group = 0;       // of the next asynchronous copy
};

struct Warp {
    Message sent[LANES];
    Message received[LANES];
};

struct Emulator {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    std::vector<uint64_t> shared;
    std::set<const void*> allowed; // kernels that may have all dynamic shared memory
    jmp_buf scheduler;
    const char* kernel = "";
    Body body = nullptr;
    void* context = nullptr;
    unsigned threads = 0;
    unsigned running = 0;
    Order order = ASCENDING;
};

thread_local Emulator emulator;

// Yields to the scheduler. Saves registers only: no system call.
void wait() {
    if (_setjmp(emulator.fibers[emulator.running]->at) == 0) _longjmp(emulator.scheduler, 1);
}

// A fiber's main loop: runs the kernel's body for one thread after another.
void run_fiber() {
    for (;;) {
        emulator.body(emulator.context);
        if (!emulator.fibers[emulator.running]->copies.empty()) fault("a thread exits with asynchronous copies in flight");
        emulator.fibers[emulator.running]->state = State::Done;
        wait();
    }
}

Fiber& fiber(unsigned i) {
    while (emulator.fibers.size() <= i) emulator.fibers.push_back(std::make_unique<Fiber>());
    return *emulator.fibers[i];
}

void resume(unsigned i) {
    Fiber& next = fiber(i);
    emulator.running = i;
    threadIdx = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    if (_setjmp(emulator.scheduler) != 0) return;
    if (next.started) _longjmp(next.at, 1);
    next.started = true;
    next.stack.reset(new char[STACK]);
    getcontext(&next.first);
    next.first.uc_stack.ss_sp = next.stack.get();
    next.first.uc_stack.ss_size = STACK;
    next.first.uc_link = nullptr;
    makecontext(&next.first, run_fiber, 0);
    setcontext(&next.first);
}

// Resumes the lanes of a warp that have reached the same exchange.
void release(unsigned warp) {
    const unsigned first = warp * LANES;
    for (unsigned i = first; i < emulator.threads && i < first + LANES; i++) {
        if (fiber(i).state != State::AtExchange) continue;
        const unsigned mask = fiber(i).mask;
        bool all = true;
        for (unsigned lane = 0; lane < LANES; lane++) {
            if (!(mask >> lane & 1u)) continue;
            if (first + lane >= emulator.threads) fault("an exchange names a lane that does not exist");
            const Fiber& other = fiber(first + lane);
            if (other.state == State::Done) fault("an exchange waits for a lane that has exited");
            all &= other.state == State::AtExchange;
            if (other.state == State::AtExchange && other.mask != mask) fault("lanes exchange with different masks");
        }
        if (!all) continue;
        Warp& of = emulator.warps[warp];
        for (unsigned lane = 0; lane < LANES; lane++) {
            if (!(mask >> lane & 1u)) continue;
            of.received[lane] = of.sent[lane];
            fiber(first + lane).state = State::Ready;
        }
    }
}

void run_block() {
    const unsigned threads = emulator.threads;
    std::fill(emulator.shared.begin(), emulator.shared.end(), ~uint64_t(0));
    for (unsigned i = 0; i < threads; i++) fiber(i).state = State::Ready;
    for (unsigned pass = 0;; pass++) {
        unsigned ran = 0, waiting = 0, done = 0;
        const bool down = emulator.order == DESCENDING || (emulator.order == ALTERNATING && pass % 2);
        for (unsigned n = 0; n < threads; n++) {
            const unsigned i = down ? threads - 1 - n : n;
            if (fiber(i).state != State::Ready) continue;
            ran++;
            resume(i);
        }
        for (unsigned warp = 0; warp * LANES < threads; warp++) release(warp);
        for (unsigned i = 0; i < threads; i++) {
            waiting += fiber(i).state == State::AtBarrier;
            done += fiber(i).state == State::Done;
        }
        if (done == threads) return;
        if (waiting == threads) {
            for (unsigned i = 0; i < threads; i++) fiber(i).state = State::Ready;
        } else if (ran == 0) {
            fault("a barrier is not reached by all threads of the block");
        }
    }
}

} // namespace

[[noreturn]] void fault(const char* what) {
    fprintf(stderr, "kernel `%s`, block (%u, %u, %u), thread %u: %s\n", emulator.kernel, blockIdx.x, blockIdx.y,
            blockIdx.z, emulator.running, what);
    abort();
}

int allow_shared(const void* kernel) {
    emulator.allowed.insert(kernel);
    return 0;
}

int launch(dim3 grid, dim3 block, size_t shared, Kernel kernel, Body body, void* context) {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    const bool valid = threads > 0 && threads <= MAX_THREADS && block.z <= 64 && grid.x > 0 && grid.x < 1u << 31 &&
                       grid.y > 0 && grid.y < 1u << 16 && grid.z > 0 && grid.z < 1u << 16 && shared <= MAX_SHARED;
    if (!valid) return INVALID_CONFIGURATION;
    if (shared > SHARED_BY_DEFAULT && !emulator.allowed.count(kernel.address)) return INVALID_VALUE;
    emulator.kernel = kernel.name;
    emulator.body = body;
    emulator.context = context;
    emulator.threads = unsigned(threads);
    emulator.warps.resize((threads + LANES - 1) / LANES);
    emulator.shared.resize((shared + 7) / 8);
    gridDim = grid;
    blockDim = block;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t i = emulator.order == ASCENDING ? n : blocks - 1 - n;
        blockIdx = dim3(unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y));
        run_block();
    }
    return 0;
}

void barrier() {
    fiber(emulator.running).state = State::AtBarrier;
    wait();
}

const Message* exchange(unsigned mask, const Message& message, int reading) {
    const unsigned warp = emulator.running / LANES, lane = emulator.running % LANES;
    if (!(mask >> lane & 1u)) fault("a lane is missing from the mask of its own exchange");
    if (reading < NO_LANE && (reading < 0 || !(mask >> reading & 1u))) fault("a shuffle reads a lane outside its mask");
    emulator.warps[warp].sent[lane] = message;
    fiber(emulator.running).mask = mask;
    fiber(emulator.running).state = State::AtExchange;
    wait();
    return emulator.warps[warp].received;
}

int lane() { return int(emulator.running % LANES); }

void* dynamic_shared() { return emulator.shared.data(); }

void copy_async(void* to, const void* from) {
    if (uintptr_t(to) % COPY_BYTES || uintptr_t(from) % COPY_BYTES) fault("an asynchronous copy is not 16-byte aligned");
    memset(to, 0xff, COPY_BYTES); // NaN until the copy is waited for
    Fiber& of = fiber(emulator.running);
    of.copies.push_back({to, from, of.group});
}

void copy_async_commit() { fiber(emulator.running).group++; }

void copy_async_wait(unsigned pending) {
    Fiber& of = fiber(emulator.running);
    size_t done = 0;
    for (; done < of.copies.size() && of.copies[done].group + pending < of.group; done++)
        memcpy(of.copies[done].to, of.copies[done].from, COPY_BYTES);
    of.copies.erase(of.copies.begin(), of.copies.begin() + ptrdiff_t(done));
}

} // namespace host

// Sets the execution order of the calling thread's later launches: 0 ascending, 1 descending, 2 alternating.
extern "C" void er_host_order(int order) { host::emulator.order = host::Order(order); }
