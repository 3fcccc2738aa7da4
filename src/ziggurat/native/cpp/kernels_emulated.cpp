// AVX-512's kernels without AVX-512: what a test of them can run on any processor.
#if defined(ZIGGURAT_EMULATED)
#include "simd_scalar.h"
#include "kernels.inl"

namespace ziggurat {

constexpr Kernels emulated_kernels = Set<Portable<16, QuadLayout64, true>>::table("emulated", pack_quads64);

}  // namespace ziggurat
#endif
