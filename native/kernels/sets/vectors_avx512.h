// AVX-512 with VNNI, and with bf16 products if BF16: sixteen floats.
#pragma once

#include "kernels/sets.h"
#include "kernels/sets/vectors_avx2.h"

#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about the "undefined" operands of its own intrinsics (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace ziggurat {
namespace {

template <bool BF16> struct Avx512 {
    static constexpr Layout LAYOUT_OF = QuadLayout64::value;
    static constexpr int WIDTH = 16;
    static constexpr int ROWS = QuadLayout64::ROWS;
    static constexpr int VECTORS = 4;
    static constexpr bool HAS_DOT_BF16 = BF16;
    using F = __m512;
    using I = __m512i;

    static F zero() { return _mm512_setzero_ps(); }
    static F set(float x) { return _mm512_set1_ps(x); }
    static F load(const float* p) { return _mm512_loadu_ps(p); }
    static F load_part(const float* p, int n) { return _mm512_maskz_loadu_ps(first(n), p); }
    static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
    static void store_part(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first(n), v); }

    static F add(F a, F b) { return _mm512_add_ps(a, b); }
    static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
    static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
    static F div(F a, F b) { return _mm512_div_ps(a, b); }
    static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
    static F max(F a, F b) { return _mm512_max_ps(a, b); }
    static F min(F a, F b) { return _mm512_min_ps(a, b); }
    static F abs(F a) { return as_float(andi(as_int(a), seti(0x7fffffff))); }
    // a / b, given 1 / b: computes the exact error of the quotient and corrects it, which is faster than a division.
    static F divide_by(F a, F b, F inverse) {
        const F quotient = mul(a, inverse);
        return fma(_mm512_fnmadd_ps(quotient, b, a), inverse, quotient);
    }

    static I seti(int32_t x) { return _mm512_set1_epi32(x); }
    static I loadi(const void* p) { return _mm512_loadu_si512(p); }
    static I word(const void* p) { return as_int(_mm512_set1_ps(*static_cast<const float*>(p))); }
    static I addi(I a, I b) { return _mm512_add_epi32(a, b); }
    static I andi(I a, I b) { return _mm512_and_si512(a, b); }
    static I maxi(I a, I b) { return _mm512_max_epi32(a, b); }
    template <int N> static I left(I a) { return _mm512_slli_epi32(a, N); }
    template <int N> static I right(I a) { return _mm512_srli_epi32(a, N); }
    static I as_int(F a) { return _mm512_castps_si512(a); }
    static F as_float(I a) { return _mm512_castsi512_ps(a); }
    static I to_int(F a) { return _mm512_cvtps_epi32(a); }
    static F to_float(I a) { return _mm512_cvtepi32_ps(a); }
    static F keep_nan(F rounded, F from) {
        return _mm512_mask_mov_ps(rounded, _mm512_cmp_ps_mask(from, from, _CMP_UNORD_Q), as_float(seti(0x7fc00000)));
    }

    static float sum(F v) {
        __m256 half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        __m128 a = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        a = _mm_add_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)));
    }
    static float greatest(F v) {
        __m256 half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
        __m128 a = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
        a = _mm_max_ps(a, _mm_movehl_ps(a, a));
        return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
    }

    using Code = uint8_t;
    static void store_codes(Code* p, I v) {
        const __m128i bytes = _mm512_cvtepi32_epi8(addi(v, seti(LAYOUT_OF.offset)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bytes);
    }
    static void store_halves(uint16_t* p, F v) {
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(right<16>(as_int(v))));
    }
    // In place, as assembly: with the intrinsics GCC 12 copies accumulators to and from the stack.
    static I dot(I total, I a, I b) {
        __asm__("vpdpbusd %2, %1, %0" : "+v"(total) : "v"(a), "v"(b));
        return total;
    }
    static F dot_bf16(F total, I a, I b) {
        __asm__("vdpbf16ps %2, %1, %0" : "+v"(total) : "v"(a), "v"(b));
        return total;
    }
    static void transpose(const float* const* rows, int column, float* target, ptrdiff_t step) {
        for (int i = 0; i < 16; i += 8)
            for (int j = 0; j < 16; j += 8) transpose_8x8(rows + i, column + j, target + j * step + i, step);
    }

  private:
    static __mmask16 first(int n) { return static_cast<__mmask16>((1u << n) - 1); }
};

}  // namespace
}  // namespace ziggurat
