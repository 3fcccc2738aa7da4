#pragma once

#include <nanobind/nanobind.h>

namespace ziggurat {

// Adds the class `StaticTier`.
void bind_static(nanobind::module_& module);

}  // namespace ziggurat
