// The fibers behind host.h.

#include "host.h"

#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <ucontext.h>
#include <vector>

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace host {
namespace {

constexpr int LANES = 32;
constexpr unsigned MOST_THREADS = 1024;
constexpr size_t MOST_SHARED = 227 * 1024;
constexpr size_t STACK = 128 * 1024;
constexpr int INVALID_CONFIGURATION = 9;

enum class State { Ready, AtBarrier, AtExchange, Done };

// How the threads of a block, and the blocks, follow each other.
enum Order { ASCENDING = 0, DESCENDING = 1, ALTERNATING = 2 };

struct Fiber {
    ucontext_t first;
    jmp_buf at;
    std::unique_ptr<char[]> stack;
    bool begun = false;
    State state = State::Done;
    unsigned mask = 0;
};

struct Warp {
    uint64_t shown[LANES];
    uint64_t seen[LANES];
};

struct Machine {
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    std::vector<uint64_t> shared;
    jmp_buf scheduler;
    const char* kernel = "";
    Body body = nullptr;
    void* context = nullptr;
    unsigned threads = 0;
    unsigned running = 0;
    Order order = ASCENDING;
};

thread_local Machine machine;

[[noreturn]] void fault(const char* what) {
    fprintf(stderr, "kernel `%s`, block (%u, %u, %u), thread %u: %s\n", machine.kernel, blockIdx.x, blockIdx.y,
            blockIdx.z, machine.running, what);
    abort();
}

// The running fiber waits until the scheduler comes back to it. Registers alone are kept: no system call.
void wait() {
    if (_setjmp(machine.fibers[machine.running]->at) == 0) _longjmp(machine.scheduler, 1);
}

// What a fiber does all its life: the kernel's body for one thread after the other.
void live() {
    for (;;) {
        machine.body(machine.context);
        machine.fibers[machine.running]->state = State::Done;
        wait();
    }
}

Fiber& fiber(unsigned i) {
    while (machine.fibers.size() <= i) machine.fibers.push_back(std::make_unique<Fiber>());
    return *machine.fibers[i];
}

void resume(unsigned i) {
    Fiber& next = fiber(i);
    machine.running = i;
    threadIdx = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / (blockDim.x * blockDim.y));
    if (_setjmp(machine.scheduler) != 0) return;
    if (next.begun) _longjmp(next.at, 1);
    next.begun = true;
    next.stack.reset(new char[STACK]);
    getcontext(&next.first);
    next.first.uc_stack.ss_sp = next.stack.get();
    next.first.uc_stack.ss_size = STACK;
    next.first.uc_link = nullptr;
    makecontext(&next.first, live, 0);
    setcontext(&next.first);
}

// Lets the lanes of a warp go on that have come to the same exchange.
void release(unsigned warp) {
    const unsigned first = warp * LANES;
    for (unsigned i = first; i < machine.threads && i < first + LANES; i++) {
        if (fiber(i).state != State::AtExchange) continue;
        const unsigned mask = fiber(i).mask;
        bool all = true;
        for (unsigned lane = 0; lane < LANES; lane++) {
            if (!(mask >> lane & 1u)) continue;
            if (first + lane >= machine.threads) fault("an exchange names a lane that is not there");
            const Fiber& other = fiber(first + lane);
            if (other.state == State::Done) fault("an exchange waits for a lane that has ended");
            all &= other.state == State::AtExchange;
            if (other.state == State::AtExchange && other.mask != mask) fault("lanes exchange with different masks");
        }
        if (!all) continue;
        Warp& of = machine.warps[warp];
        for (unsigned lane = 0; lane < LANES; lane++) {
            if (!(mask >> lane & 1u)) continue;
            of.seen[lane] = of.shown[lane];
            fiber(first + lane).state = State::Ready;
        }
    }
}

void run_block() {
    const unsigned threads = machine.threads;
    std::fill(machine.shared.begin(), machine.shared.end(), ~uint64_t(0));
    for (unsigned i = 0; i < threads; i++) fiber(i).state = State::Ready;
    for (unsigned pass = 0;; pass++) {
        unsigned ran = 0, waiting = 0, done = 0;
        const bool down = machine.order == DESCENDING || (machine.order == ALTERNATING && pass % 2);
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

int launch(dim3 grid, dim3 block, size_t shared, const char* kernel, Body body, void* context) {
    const uint64_t threads = uint64_t(block.x) * block.y * block.z;
    const bool possible = threads > 0 && threads <= MOST_THREADS && block.z <= 64 && grid.x > 0 && grid.x < 1u << 31 &&
                          grid.y > 0 && grid.y < 1u << 16 && grid.z > 0 && grid.z < 1u << 16 && shared <= MOST_SHARED;
    if (!possible) return INVALID_CONFIGURATION;
    machine.kernel = kernel;
    machine.body = body;
    machine.context = context;
    machine.threads = unsigned(threads);
    machine.warps.resize((threads + LANES - 1) / LANES);
    machine.shared.resize((shared + 7) / 8);
    gridDim = grid;
    blockDim = block;
    const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
    for (uint64_t n = 0; n < blocks; n++) {
        const uint64_t i = machine.order == ASCENDING ? n : blocks - 1 - n;
        blockIdx = dim3(unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y));
        run_block();
    }
    return 0;
}

void barrier() {
    fiber(machine.running).state = State::AtBarrier;
    wait();
}

const uint64_t* exchange(unsigned mask, uint64_t bits, int reading) {
    const unsigned warp = machine.running / LANES, lane = machine.running % LANES;
    if (!(mask >> lane & 1u)) fault("a lane takes part in an exchange whose mask leaves it out");
    if (reading < NO_LANE && (reading < 0 || !(mask >> reading & 1u))) fault("a shuffle reads a lane outside its mask");
    machine.warps[warp].shown[lane] = bits;
    fiber(machine.running).mask = mask;
    fiber(machine.running).state = State::AtExchange;
    wait();
    return machine.warps[warp].seen;
}

int lane() { return int(machine.running % LANES); }

void* dynamic_shared() { return machine.shared.data(); }

} // namespace host

// How threads and blocks follow each other from now on, on the calling thread: 0 ascending, 1 descending, 2 alternating.
extern "C" void er_host_order(int order) { host::machine.order = host::Order(order); }
