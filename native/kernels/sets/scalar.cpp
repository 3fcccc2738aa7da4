#include "kernels/sets/vectors_portable.h"
#include "kernels/kernels.inl"

namespace ziggurat {

constexpr Kernels scalar_kernels = Set<Portable<4, PairLayout16, false>>::table("scalar", pack_pairs16);

}  // namespace ziggurat
