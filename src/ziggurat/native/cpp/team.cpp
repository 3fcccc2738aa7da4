#include "team.h"

#include <algorithm>
#include <chrono>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace ziggurat {

namespace {

// How long a worker looks out for the next round before it sleeps. A layer has several rounds, a few dozen microseconds
// apart; waking a sleeper costs as much.
constexpr auto PATIENCE = std::chrono::microseconds(50);
constexpr int GLANCES = 64;  // between two looks at the clock

void breathe() {
#if defined(__x86_64__)
    _mm_pause();
#endif
}

}  // namespace

Team::Team(int size) {
    for (int thread = 1; thread < size; ++thread) workers_.emplace_back([this, thread] { work(thread); });
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
    next_.store(0, std::memory_order_relaxed);
    idle_.store(0, std::memory_order_relaxed);
    {
        // Under the lock, so that no worker goes to sleep between its last look at the round and this change.
        std::lock_guard<std::mutex> lock(mutex_);
        round_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    take(0);
    const int others = static_cast<int>(workers_.size());
    for (int glance = 0; idle_.load(std::memory_order_acquire) < others; ++glance) {
        // A worker that has no core of its own gets ours.
        if (glance < 4096) breathe();
        else std::this_thread::yield();
    }
}

void Team::take(int thread) {
    for (int i = next_.fetch_add(1); i < n_tasks_; i = next_.fetch_add(1)) (*task_)(i, thread);
}

void Team::work(int thread) {
    unsigned seen = 0;
    for (;;) {
        const auto until = std::chrono::steady_clock::now() + PATIENCE;
        while (round_.load(std::memory_order_acquire) == seen && !stop_ && std::chrono::steady_clock::now() < until)
            for (int glance = 0; glance < GLANCES && round_.load(std::memory_order_relaxed) == seen; ++glance) breathe();
        if (round_.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(mutex_);
            wake_.wait(lock, [&] { return round_.load(std::memory_order_acquire) != seen || stop_; });
        }
        if (stop_) return;
        seen = round_.load(std::memory_order_acquire);
        take(thread);
        idle_.fetch_add(1, std::memory_order_release);
    }
}

}  // namespace ziggurat
