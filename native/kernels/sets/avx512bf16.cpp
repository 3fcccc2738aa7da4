// Compiled with -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx512bf16.
#if defined(__x86_64__)
#include "kernels/sets/vectors_avx512.h"
#include "kernels/kernels.inl"

namespace ziggurat {

constexpr Kernels avx512bf16_kernels = Set<Avx512<true>>::table("avx512bf16", pack_quads64);

}  // namespace ziggurat
#endif
