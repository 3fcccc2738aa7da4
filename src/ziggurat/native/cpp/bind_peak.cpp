// What a thread's multipliers reach, for measurements.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#include <time.h>

#include <stdexcept>
#include <string>
#include <utility>

#include "bind_kernels.h"
#include "kernels.h"
#include "process.h"

namespace nb = nanobind;

namespace ziggurat {
namespace {

// Operations and seconds of so many rounds.
std::pair<double, double> peak(const std::string& name, const std::string& dtype, int rounds) {
    const Dtype kind = dtype == "i8" ? Dtype::i8 : dtype == "bf16" ? Dtype::bf16 : Dtype::f32;
    if (kind == Dtype::f32 && dtype != "f32") throw std::invalid_argument("dtype: f32, bf16 or i8");
    for (const Kernels* set : kernels()) {
        if (set->name != name) continue;
        alignas(64) float memory[16] = {};
        const double start = own_time();
        const double operations = set->peak(kind, rounds, memory);
        return {operations, own_time() - start};
    }
    throw std::invalid_argument("no instruction set " + name + " here");
}

}  // namespace

double own_time() {
    timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void bind_peak(nb::module_& module) {
    module.def("peak", &peak, nb::call_guard<WithoutGil>(), nb::arg("name"), nb::arg("dtype"), nb::arg("rounds"),
               "Operations and seconds of products that never leave the registers.");
}

}  // namespace ziggurat
