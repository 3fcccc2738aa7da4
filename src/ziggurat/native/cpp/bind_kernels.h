#pragma once

#include <nanobind/nanobind.h>

namespace ziggurat {

// Adds the submodule `kernels`.
void bind_kernels(nanobind::module_& parent);

// Adds to it what the multipliers reach.
void bind_peak(nanobind::module_& module);

// What this thread has computed for, in seconds: others on the machine do not count.
double own_time();

}  // namespace ziggurat
