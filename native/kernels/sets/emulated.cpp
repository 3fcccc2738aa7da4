// The AVX-512 kernels over portable vectors, so that tests of them run on any processor.
#if defined(ZIGGURAT_EMULATED)
#include "kernels/sets/vectors_portable.h"
#include "kernels/kernels.inl"

namespace ziggurat {

constexpr Kernels emulated_kernels = Set<Portable<16, QuadLayout64, true>>::table("emulated", pack_quads64);

}  // namespace ziggurat
#endif
