#include "process.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <new>
#include <thread>

namespace nb = nanobind;

namespace ziggurat {

namespace {

std::atomic<unsigned> n_forks{0};
// These belong to whoever has the interpreter's lock.
int n_without = 0;
bool ending = false;

// In a child, where the thread that forked is the only one: those who were without the lock are not here. Python forks
// with the lock, and others who fork have no interpreter to go on with.
void begin_child() {
    ++n_forks;
    n_without = 0;
}

void wait_for_others() {
    ending = true;
    while (n_without) {
        PyThreadState* const state = PyEval_SaveThread();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        PyEval_RestoreThread(state);
    }
}

}  // namespace

unsigned forks() { return n_forks.load(std::memory_order_relaxed); }

WithoutGil::WithoutGil() : state_(nullptr) {
    if (ending) return;
    ++n_without;
    state_ = PyEval_SaveThread();
}

WithoutGil::~WithoutGil() {
    if (!state_) return;
    PyEval_RestoreThread(state_);
    --n_without;
}

void watch_process() {
    if (pthread_atfork(nullptr, nullptr, begin_child)) throw std::bad_alloc();
    // Python calls these while other threads still may have its lock.
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(wait_for_others));
}

}  // namespace ziggurat
