// A fixed team of threads that splits one call's work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ziggurat {

// What a thread is asked to do: task 0 … n_tasks - 1, by thread 0 … size - 1 (0 is the caller).
using Task = std::function<void(int task, int thread)>;

class Team {
  public:
    // Of `size` threads, or of as many as the system gives: the caller alone is a team, too, and answers do not depend on
    // how many there are.
    explicit Team(int size);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs all tasks, each once, in any order on any thread; returns when the last is done. One caller at a time. Throws
    // what a task has thrown, one of them where there are several.
    void run(int n_tasks, const Task& task);

  private:
    void work(int thread);
    bool take(int thread);
    void attempt(int task, int thread);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<bool> stop_{false};
    // The number of this round above, how many of its tasks nobody has taken below. Both change at once, so that a worker
    // who comes late takes no task of a round that it did not see begin.
    std::atomic<uint64_t> round_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<int> done_{0};  // tasks of this round
    std::atomic<bool> failed_{false};
    std::exception_ptr failure_;  // of whoever set `failed_`
    const Task* task_ = nullptr;
    int n_tasks_ = 0;
};

}  // namespace ziggurat
