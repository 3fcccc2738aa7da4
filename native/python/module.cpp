// The module `ziggurat.native._core`, and the process that it runs in.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <pthread.h>

#include <chrono>
#include <new>
#include <thread>

#include "python/bindings.h"

namespace ziggurat {
namespace {

std::atomic<unsigned> n_forks{0};
// Read and written only with the interpreter's lock.
int n_released = 0;
bool ending = false;

// In a child the thread that forked is the only one; threads that had released the lock do not exist. Python forks
// while it holds the lock, and a child of another fork has no interpreter to use.
void reset_in_child() {
    ++n_forks;
    n_released = 0;
}

void wait_for_released() {
    ending = true;
    while (n_released) {
        PyThreadState* const state = PyEval_SaveThread();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        PyEval_RestoreThread(state);
    }
}

}  // namespace

unsigned forks() { return n_forks.load(std::memory_order_relaxed); }

WithoutGil::WithoutGil() : state_(nullptr) {
    if (ending) return;
    ++n_released;
    state_ = PyEval_SaveThread();
}

WithoutGil::~WithoutGil() {
    if (!state_) return;
    PyEval_RestoreThread(state_);
    --n_released;
}

void watch_process() {
    if (pthread_atfork(nullptr, nullptr, reset_in_child)) throw std::bad_alloc();
    // Python calls this while other threads may still take the lock.
    nb::module_::import_("atexit").attr("register")(nb::cpp_function(wait_for_released));
}

}  // namespace ziggurat

using namespace ziggurat;

NB_MODULE(_core, module) {
    nb::set_leak_warnings(false);
    watch_process();
    kernels();  // chooses them now: after a fork in the middle of that the child would wait forever
    bind_rules(module);
    bind_kernels(module);
    bind_small(module);
    bind_engine(module);
    module.def(
        "instructions",
        [] {
            std::vector<std::string> names;
            for (const Kernels* set : kernels()) names.emplace_back(set->name);
            return names;
        },
        "Names of the instruction sets that this processor can run, the fastest first.");
}
