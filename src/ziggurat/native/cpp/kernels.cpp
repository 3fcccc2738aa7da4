// Which instruction sets this processor can run.
#include "kernels.h"

#include "sets.h"

namespace ziggurat {
namespace {

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> sets;
    // An instruction set that does not reproduce the scalar answers is left out: slow is better than wrong.
    const auto offer = [&](bool can_run, const Kernels& set) {
        if (can_run && agrees_with_scalar(set)) sets.push_back(&set);
    };
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    offer(avx512 && __builtin_cpu_supports("avx512bf16"), avx512bf16_kernels);
    offer(avx512, avx512_kernels);
    offer(avx2, avx2_kernels);
#endif
    sets.push_back(&scalar_kernels);
    return sets;
}

}  // namespace

const std::vector<const Kernels*>& kernels() {
    static const std::vector<const Kernels*> sets = available();
    return sets;
}

}  // namespace ziggurat
