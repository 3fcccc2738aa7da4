// Vectors in portable C++ (the vector extension of GCC and Clang, which becomes SSE2, NEON or plain instructions). With
// four lanes this is the instruction set "scalar"; with sixteen it replaces AVX-512 in tests, on any processor.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernels/sets.h"

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"  // nothing here is called from another file
#endif

namespace ziggurat {
namespace {

template <int LANES> struct Lanes;
template <> struct Lanes<4> {
    typedef float F __attribute__((vector_size(16)));
    typedef int32_t I __attribute__((vector_size(16)));
    typedef uint32_t U __attribute__((vector_size(16)));
};
template <> struct Lanes<16> {
    typedef float F __attribute__((vector_size(64)));
    typedef int32_t I __attribute__((vector_size(64)));
    typedef uint32_t U __attribute__((vector_size(64)));
};

template <int LANES, class LAYOUT, bool DOT_BF16> struct Portable {
    static constexpr Layout LAYOUT_OF = LAYOUT::value;
    static constexpr int WIDTH = LANES;
    static constexpr int ROWS = LAYOUT::ROWS;
    static constexpr int VECTORS = LAYOUT::value.panel / LANES;
    static constexpr bool HAS_DOT_BF16 = DOT_BF16;
    using F = typename Lanes<LANES>::F;
    using I = typename Lanes<LANES>::I;

    static F zero() { return F{}; }
    static F set(float x) { return x - F{}; }  // minus, because -0 + 0 is 0
    static F load(const float* p) { return load_part(p, LANES); }
    static F load_part(const float* p, int n) {
        F v{};
        std::memcpy(&v, p, sizeof(float) * n);
        return v;
    }
    static void store(float* p, F v) { store_part(p, v, LANES); }
    static void store_part(float* p, F v, int n) { std::memcpy(p, &v, sizeof(float) * n); }

    static F add(F a, F b) { return a + b; }
    static F sub(F a, F b) { return a - b; }
    static F mul(F a, F b) { return a * b; }
    static F div(F a, F b) { return a / b; }
    static F fma(F a, F b, F c) { return a * b + c; }
    static F max(F a, F b) { return a > b ? a : b; }  // b where a or b is NaN, as on x86
    static F min(F a, F b) { return a < b ? a : b; }
    static F abs(F a) { return as_float(as_int(a) & 0x7fffffff); }
    static F divide_by(F a, F b, F) { return a / b; }

    static I seti(int32_t x) { return x + I{}; }
    static I loadi(const void* p) {
        I v;
        std::memcpy(&v, p, sizeof v);
        return v;
    }
    static I word(const void* p) {
        int32_t w;
        std::memcpy(&w, p, sizeof w);
        return seti(w);
    }
    // Wraps around, as the instructions do: NaN scores reach this.
    static I addi(I a, I b) { return (I)((U)a + (U)b); }
    static I andi(I a, I b) { return a & b; }
    static I maxi(I a, I b) { return a > b ? a : b; }
    template <int N> static I left(I a) { return (I)((U)a << N); }
    template <int N> static I right(I a) { return (I)((U)a >> N); }
    static I as_int(F a) { return (I)a; }
    static F as_float(I a) { return (F)a; }
    // To nearest, halves to even; enough for codes, |a| < 2^22.
    static I to_int(F a) { return addi(as_int(a + 12582912.f), seti(-0x4b400000)); }
    static F to_float(I a) {
        F v{};
        for (int i = 0; i < LANES; ++i) v[i] = static_cast<float>(a[i]);
        return v;
    }
    static F keep_nan(F rounded, F from) { return as_float(from == from ? as_int(rounded) : seti(0x7fc00000)); }

    static float sum(F v) {
        for (int half = LANES / 2; half; half /= 2)
            for (int i = 0; i < half; ++i) v[i] += v[i + half];
        return v[0];
    }
    static float greatest(F v) {
        for (int i = 1; i < LANES; ++i) v[0] = v[i] > v[0] ? v[i] : v[0];
        return v[0];
    }

    using Code = typename LAYOUT::Code;
    static void store_codes(Code* p, I v) {
        for (int i = 0; i < LANES; ++i) p[i] = static_cast<Code>(v[i] + LAYOUT_OF.offset);
    }
    static void store_halves(uint16_t* p, F v) {
        for (int i = 0; i < LANES; ++i) p[i] = static_cast<uint16_t>(static_cast<uint32_t>(as_int(v)[i]) >> 16);
    }
    // total + the products of the codes in each word: two signed ones of 16 bits, or four of 8 bits, unsigned x signed.
    static I dot(I total, I a, I b) {
        if constexpr (sizeof(Code) == 2) {
            return total + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
        } else {
            for (int shift = 24; shift >= 0; shift -= 8) total += (a << shift >> 24 & 255) * (b << shift >> 24);
            return total;
        }
    }
    // Like VDPBF16PS: the odd product first.
    static F dot_bf16(F total, I a, I b) {
        const I upper = seti(static_cast<int32_t>(0xffff0000));
        total += as_float(a & upper) * as_float(b & upper);
        return total + as_float(a << 16) * as_float(b << 16);
    }
    static void transpose(const float* const* rows, int column, float* target, ptrdiff_t step) {
        for (int i = 0; i < LANES; ++i)
            for (int j = 0; j < LANES; ++j) target[j * step + i] = rows[i][column + j];
    }

  private:
    using U = typename Lanes<LANES>::U;
};

}  // namespace
}  // namespace ziggurat
