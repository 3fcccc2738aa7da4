// Compiled with -mavx2 -mfma -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni.
#if defined(__x86_64__)
#include "kernels/sets/vectors_avx512.h"
#include "kernels/kernels.inl"

namespace ziggurat {

constexpr Kernels avx512_kernels = Set<Avx512<false>>::table("avx512", pack_quads64);

}  // namespace ziggurat
#endif
