// What Python sees: `ziggurat.native._core`.
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bind_bilstm.h"
#include "bind_engine.h"
#include "bind_kernels.h"
#include "bind_rules.h"
#include "bind_static.h"
#include "process.h"

using namespace ziggurat;

NB_MODULE(_core, module) {
    nb::set_leak_warnings(false);
    watch_process();
    kernels();  // are chosen now: a fork in the middle of that would leave the child waiting for it
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
