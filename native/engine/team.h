// A fixed team of threads that splits the work of one call.
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

// Does task 0 … n_tasks - 1 on thread 0 … size - 1 (0 is the caller's thread).
using Task = std::function<void(int task, int thread)>;

class Team {
  public:
    // A team of `size` threads, or of as many as the system gives: results do not depend on their number. The caller's
    // thread is one of them.
    explicit Team(int size);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs all tasks, each once, in any order on any thread; returns when the last is done. One caller at a time. If
    // tasks have thrown, throws one of their exceptions.
    void run(int n_tasks, const Task& task);

  private:
    void work(int thread);
    bool take(int thread);
    void attempt(int task, int thread);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<bool> stop_{false};
    // Upper half: the number of this round. Lower half: how many of its tasks are not taken yet. Both change at once,
    // so that a late worker takes no task of a round whose start it did not see.
    std::atomic<uint64_t> round_{0};
    std::atomic<int> sleepers_{0};
    std::atomic<int> done_{0};  // tasks of this round
    std::atomic<bool> failed_{false};
    std::exception_ptr failure_;  // of the task that set `failed_`
    const Task* task_ = nullptr;
    int n_tasks_ = 0;
};

}  // namespace ziggurat
