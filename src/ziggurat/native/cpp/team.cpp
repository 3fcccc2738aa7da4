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

// A round is over when its tasks are, whether or not all workers have noticed it: one that is asleep, or whose core somebody
// else has, holds nobody up. Whoever comes late takes tasks of whichever round it finds.
void Team::run(int n_tasks, const Task& task) {
    if (workers_.empty() || n_tasks <= 1) {
        for (int i = 0; i < n_tasks; ++i) task(i, 0);
        return;
    }
    task_ = &task;
    done_.store(0, std::memory_order_relaxed);
    {
        // Under the lock, so that no worker goes to sleep between its last look and this change.
        std::lock_guard<std::mutex> lock(mutex_);
        left_.store(n_tasks, std::memory_order_release);
    }
    wake_.notify_all();
    take(0);
    for (int glance = 0; done_.load(std::memory_order_acquire) < n_tasks; ++glance) {
        // A worker that has no core of its own gets ours.
        if (glance < 4096)
            breathe();
        else
            std::this_thread::yield();
    }
}

void Team::take(int thread) {
    for (int i = left_.fetch_sub(1, std::memory_order_acquire); i > 0;
         i = left_.fetch_sub(1, std::memory_order_acquire)) {
        (*task_)(i - 1, thread);
        done_.fetch_add(1, std::memory_order_release);
    }
}

void Team::work(int thread) {
    while (!stop_) {
        const auto until = std::chrono::steady_clock::now() + PATIENCE;
        while (left_.load(std::memory_order_relaxed) <= 0 && !stop_ && std::chrono::steady_clock::now() < until)
            for (int glance = 0; glance < GLANCES && left_.load(std::memory_order_relaxed) <= 0; ++glance) breathe();
        if (left_.load(std::memory_order_relaxed) > 0) {
            take(thread);
            continue;
        }
        // Woken for a round that others have finished by now, it looks out for the next.
        std::unique_lock<std::mutex> lock(mutex_);
        if (left_.load(std::memory_order_relaxed) <= 0 && !stop_) wake_.wait(lock);
    }
}

}  // namespace ziggurat
