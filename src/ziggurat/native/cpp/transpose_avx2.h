// Eight rows of eight floats, turned: AVX-512 uses it too, block by block.
#pragma once

#include <immintrin.h>

#include <cstddef>

namespace ziggurat {
namespace {

inline void transpose_8x8(const float* const* rows, ptrdiff_t column, float* target, ptrdiff_t step) {
    __m256 pairs[8], quads[8];
    for (int i = 0; i < 4; ++i) {
        const __m256 a = _mm256_loadu_ps(rows[2 * i] + column), b = _mm256_loadu_ps(rows[2 * i + 1] + column);
        pairs[2 * i] = _mm256_unpacklo_ps(a, b);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(a, b);
    }
    for (int i = 0; i < 2; ++i)
        for (int j = 0; j < 2; ++j) {
            const __m256d a = _mm256_castps_pd(pairs[4 * i + j]), b = _mm256_castps_pd(pairs[4 * i + 2 + j]);
            quads[4 * i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
            quads[4 * i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
        }
    for (int j = 0; j < 4; ++j) {
        _mm256_storeu_ps(target + j * step, _mm256_permute2f128_ps(quads[j], quads[4 + j], 0x20));
        _mm256_storeu_ps(target + (j + 4) * step, _mm256_permute2f128_ps(quads[j], quads[4 + j], 0x31));
    }
}

}  // namespace
}  // namespace ziggurat
