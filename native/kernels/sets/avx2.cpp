// Compiled with -mavx2 -mfma.
#if defined(__x86_64__)
#include "kernels/sets/vectors_avx2.h"
#include "kernels/kernels.inl"

namespace ziggurat {

constexpr Kernels avx2_kernels = Set<Avx2>::table("avx2", pack_pairs16);

}  // namespace ziggurat
#endif
