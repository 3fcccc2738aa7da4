// A fixed team of threads that splits one call's work.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace ziggurat {

// What a thread is asked to do: task 0 … n_tasks - 1, by thread 0 … size - 1 (0 is the caller).
using Task = std::function<void(int task, int thread)>;

class Team {
  public:
    explicit Team(int size);
    ~Team();
    Team(const Team&) = delete;
    Team& operator=(const Team&) = delete;

    int size() const { return static_cast<int>(workers_.size()) + 1; }

    // Runs all tasks, each once, in any order on any thread; returns when the last is done. One caller at a time. Tasks
    // must not throw: what they need is allocated before.
    void run(int n_tasks, const Task& task);

  private:
    void work(int thread);
    void take(int thread);

    std::vector<std::thread> workers_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::atomic<int> left_{0};  // tasks that nobody has taken; none: 0 or less
    std::atomic<int> done_{0};  // tasks of this round that are over
    std::atomic<bool> stop_{false};
    const Task* task_ = nullptr;
};

}  // namespace ziggurat
