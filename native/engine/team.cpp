#include "engine/team.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ziggurat {

namespace {

// How long a worker waits actively for the next round before it sleeps. A layer has several rounds, a few dozen
// microseconds apart, and the Python code between two batches takes a few hundred; waking a sleeping thread costs fifty
// and more.
constexpr auto SPIN_TIME = std::chrono::microseconds(300);
constexpr int SPINS_PER_CHECK = 64;  // between two checks of the clock

void pause_core() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

}  // namespace

Team::Team(int size) {
    workers_.reserve(size - 1);
    try {
        for (int thread = 1; thread < size; ++thread) workers_.emplace_back([this, thread] { work(thread); });
    } catch (const std::exception&) {
        // The system gives no more threads: a container's limit, or no memory for their stacks.
    }
}

Team::~Team() {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        stop_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
}

void Team::run(int n_tasks, const Task& task) {
    if (workers_.empty() || n_tasks <= 1) {
        for (int i = 0; i < n_tasks; ++i) task(i, 0);
        return;
    }
    task_ = &task;
    n_tasks_ = n_tasks;
    done_.store(0, std::memory_order_relaxed);
    failed_.store(false, std::memory_order_relaxed);
    const uint64_t number = (round_.load(std::memory_order_relaxed) >> 32) + 1;
    round_.store(number << 32 | static_cast<uint32_t>(n_tasks));
    if (sleepers_.load()) {
        // Under the lock, so that no worker goes to sleep between its last check of the round and this call.
        const std::lock_guard<std::mutex> lock(mutex_);
        wake_.notify_all();
    }
    while (take(0)) {
    }
    // Only tasks are waited for, not workers that found nothing to do: they may still be waking up.
    for (int spin = 0; done_.load(std::memory_order_acquire) < n_tasks; ++spin) {
        // A worker may need the core of this thread.
        if (spin < 4096)
            pause_core();
        else
            std::this_thread::yield();
    }
    if (failed_.load(std::memory_order_relaxed)) std::rethrow_exception(std::exchange(failure_, nullptr));
}

// Takes a task and does it; returns whether there was one.
bool Team::take(int thread) {
    uint64_t round = round_.load(std::memory_order_acquire);
    do {
        if (!static_cast<uint32_t>(round)) return false;
    } while (!round_.compare_exchange_weak(round, round - 1, std::memory_order_acq_rel));
    // The round cannot end before this task is done, so `task_` and `n_tasks_` do not change.
    attempt(n_tasks_ - static_cast<int>(static_cast<uint32_t>(round)), thread);
    done_.fetch_add(1, std::memory_order_release);
    return true;
}

// A task that throws counts as done. The caller gets the exception when the other tasks of the round are done as well,
// because they still use the caller's memory.
void Team::attempt(int task, int thread) {
    try {
        (*task_)(task, thread);
    } catch (...) {
        if (!failed_.exchange(true)) failure_ = std::current_exception();
    }
}

void Team::work(int thread) {
    const auto has_work = [&] { return static_cast<uint32_t>(round_.load()) != 0 || stop_; };
    while (!stop_) {
        if (take(thread)) continue;
        const auto sleep_time = std::chrono::steady_clock::now() + SPIN_TIME;
        while (!has_work() && std::chrono::steady_clock::now() < sleep_time)
            for (int spin = 0; spin < SPINS_PER_CHECK && !static_cast<uint32_t>(round_.load(std::memory_order_relaxed));
                 ++spin)
                pause_core();
        if (has_work()) continue;
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleepers_;
        wake_.wait(lock, has_work);
        --sleepers_;
    }
}

}  // namespace ziggurat
