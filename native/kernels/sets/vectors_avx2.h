// AVX2 and FMA: eight floats.
#pragma once

#include <immintrin.h>

#include <cstddef>

#include "kernels/sets.h"

namespace ziggurat {
namespace {

// Transposes eight rows of eight floats. AVX-512 uses it too, block by block.
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

struct Avx2 {
    static constexpr Layout LAYOUT_OF = PairLayout16::value;
    static constexpr int WIDTH = 8;
    static constexpr int ROWS = PairLayout16::ROWS;
    static constexpr int VECTORS = 2;
    static constexpr bool HAS_DOT_BF16 = false;
    using F = __m256;
    using I = __m256i;

    static F zero() { return _mm256_setzero_ps(); }
    static F set(float x) { return _mm256_set1_ps(x); }
    static F load(const float* p) { return _mm256_loadu_ps(p); }
    static F load_part(const float* p, int n) { return _mm256_maskload_ps(p, first(n)); }
    static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
    static void store_part(float* p, F v, int n) { _mm256_maskstore_ps(p, first(n), v); }

    static F add(F a, F b) { return _mm256_add_ps(a, b); }
    static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
    static F div(F a, F b) { return _mm256_div_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm256_max_ps(a, b); }
    static F min(F a, F b) { return _mm256_min_ps(a, b); }
    static F abs(F a) { return as_float(_mm256_and_si256(as_int(a), seti(0x7fffffff))); }
    // a / b, given 1 / b: computes the exact error of the quotient and corrects it, which is faster than a division.
    static F divide_by(F a, F b, F inverse) {
        const F quotient = mul(a, inverse);
        return fma(_mm256_fnmadd_ps(quotient, b, a), inverse, quotient);
    }

    static I seti(int32_t x) { return _mm256_set1_epi32(x); }
    static I loadi(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
    static I word(const void* p) { return as_int(_mm256_broadcast_ss(static_cast<const float*>(p))); }
    static I addi(I a, I b) { return _mm256_add_epi32(a, b); }
    static I andi(I a, I b) { return _mm256_and_si256(a, b); }
    static I maxi(I a, I b) { return _mm256_max_epi32(a, b); }
    template <int N> static I left(I a) { return _mm256_slli_epi32(a, N); }
    template <int N> static I right(I a) { return _mm256_srli_epi32(a, N); }
    static I as_int(F a) { return _mm256_castps_si256(a); }
    static F as_float(I a) { return _mm256_castsi256_ps(a); }
    static I to_int(F a) { return _mm256_cvtps_epi32(a); }
    static F to_float(I a) { return _mm256_cvtepi32_ps(a); }
    static F keep_nan(F rounded, F from) {
        return _mm256_blendv_ps(rounded, as_float(seti(0x7fc00000)), _mm256_cmp_ps(from, from, _CMP_UNORD_Q));
    }

    static float sum(F v) {
        __m128 a = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
    }
    static float greatest(F v) {
        __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
        a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
    }

    using Code = int16_t;
    static void store_codes(Code* p, I v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), narrow(v)); }
    static void store_halves(uint16_t* p, F v) {
        const I upper = right<16>(as_int(v));
        const __m128i halves = _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), halves);
    }
    static I dot(I total, I a, I b) { return _mm256_add_epi32(total, _mm256_madd_epi16(a, b)); }
    static void transpose(const float* const* rows, int column, float* target, ptrdiff_t step) {
        transpose_8x8(rows, column, target, step);
    }

  private:
    static I first(int n) { return _mm256_cmpgt_epi32(seti(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)); }
    static __m128i narrow(I v) { return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)); }
};

}  // namespace
}  // namespace ziggurat
