// What the files of the single instruction sets share with dispatch.cpp and pack.cpp.
//
// A file that is compiled for AVX-512 must not define an inline function that other files define too: the linker keeps
// one of them, and it may be the one that older processors cannot run. So these files hold everything in unnamed
// namespaces, use next to nothing of the standard library, and leave allocations to pack.cpp.
#pragma once

#include "kernels/kernels.h"

namespace ziggurat {

// How weights lie in memory: panels of `panel` columns; within a panel, groups of inputs in their order; within a
// group, a 32-bit word per column. A word holds one float, two bf16 (the first input in the lower half) or 4 /
// code_bytes codes.
struct Layout {
    int panel;
    int code_bytes;  // i8: bytes per stored code; AVX2 multiplies pairs of 16 bits
    int offset;      // i8: added to the codes of activations, because VNNI multiplies unsigned by signed
};

// 8-bit weights and activations are multiplied as pairs of 16-bit words.
struct PairLayout16 {
    static constexpr Layout value{16, 2, 0};
    static constexpr int ROWS = 6;
    using Code = int16_t;
};

// 8-bit activations plus 128 are multiplied with 8-bit weights, four at a time.
struct QuadLayout64 {
    static constexpr Layout value{64, 1, 128};
    static constexpr int ROWS = 6;
    using Code = uint8_t;
};

Packed pack_pairs16(const float* weight, const float* bias, int out, int in, Dtype dtype);
Packed pack_quads64(const float* weight, const float* bias, int out, int in, Dtype dtype);

extern const Kernels scalar_kernels;
#if defined(__x86_64__)
extern const Kernels avx2_kernels;
extern const Kernels avx512_kernels;
extern const Kernels avx512bf16_kernels;
#endif
#if defined(ZIGGURAT_EMULATED)
extern const Kernels emulated_kernels;  // the AVX-512 kernels over portable vectors, for tests
#endif

// Whether `candidate` computes what the scalar kernels compute, on small problems of every kind.
bool agrees_with_scalar(const Kernels& candidate);

}  // namespace ziggurat
