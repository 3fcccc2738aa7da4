#pragma once

#include <nanobind/nanobind.h>

namespace ziggurat {

// Adds the submodule `kernels`.
void bind_kernels(nanobind::module_& parent);

}  // namespace ziggurat
