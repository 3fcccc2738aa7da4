#pragma once

#include <nanobind/nanobind.h>

namespace ziggurat {

// Adds the class `BilstmTier`.
void bind_bilstm(nanobind::module_& module);

}  // namespace ziggurat
