// What Python sees: `ziggurat.native._core`.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind_bilstm.h"
#include "bind_engine.h"
#include "bind_kernels.h"
#include "bind_rules.h"
#include "bind_static.h"

using namespace ziggurat;

NB_MODULE(_core, module) {
    nb::set_leak_warnings(false);
    bind_rules(module);
    bind_kernels(module);
    bind_static(module);
    bind_bilstm(module);
    bind_engine(module);
    module.def("instructions", [] {
        std::vector<std::string> names;
        for (const Kernels* one : kernels()) names.emplace_back(one->name);
        return names;
    });
}
