// One struct per dtype: how a row of inputs is stored, and how a word of it is multiplied with weights. At the end,
// `peak`.
//
// A prepared row is a record: its values, zeros up to whole vectors, and at the end the row's scale.

namespace ziggurat {
namespace {

// Records have whole cache lines, but never a multiple of 512 bytes: such records would compete for the same cache
// lines.
inline size_t record_bytes(size_t values) {
    const size_t bytes = round_up(values + sizeof(float), LINE);
    return bytes % 512 ? bytes : bytes + LINE;
}

template <class S> struct FloatProduct {
    using F = typename S::F;
    using Sum = F;
    static constexpr int GROUP = 1;  // inputs whose weights share a word
    static constexpr int STEPS = 1;  // words of a record per word of weights
    static constexpr int ROWS = S::ROWS;

    static size_t record(int in) { return record_bytes(sizeof(float) * round_up(in, S::WIDTH)); }

    static void prepare(const float* x, int in, std::byte* record, size_t) {
        float* values = reinterpret_cast<float*>(record);
        by_vectors<S>(
            in, [&](int i) { S::store(values + i, S::load(x + i)); },
            [&](int i, int left) { S::store(values + i, S::load_part(x + i, left)); });
    }

    static F input(const std::byte* word) { return S::as_float(S::word(word)); }
    template <int STEP> static F weights(const uint32_t* words) { return S::as_float(S::loadi(words)); }
    static F add(F total, F input, F weights) { return S::fma(input, weights, total); }

    // For the panel that begins at this column; `start` and `answer` count columns from there.
    FloatProduct(const Packed& packed, int column) : bias_(packed.bias.data() + column) {}
    F start(int) const { return S::zero(); }
    static F scale(const std::byte*, size_t) { return S::zero(); }
    F answer(F total, F, int column) const { return S::add(total, S::load(bias_ + column)); }

  private:
    const float* bias_;
};

// Rounds to the nearest bf16, halves to even; the results are floats.
template <class S> inline typename S::F round_bf16(typename S::F x) {
    const auto bits = S::as_int(x);
    const auto odd = S::andi(S::template right<16>(bits), S::seti(1));
    const auto rounded = S::addi(bits, S::addi(odd, S::seti(0x7fff)));
    return S::keep_nan(S::as_float(S::andi(rounded, S::seti(static_cast<int32_t>(0xffff0000)))), x);
}

// bf16 without bf16 instructions: weights become floats when they are loaded, inputs are rounded floats.
template <class S> struct WideProduct : FloatProduct<S> {
    using F = typename S::F;
    static constexpr int GROUP = 2;
    static constexpr int STEPS = 2;
    static constexpr int ROWS = S::ROWS - 1;  // unpacking words needs registers, too
    using FloatProduct<S>::FloatProduct;

    static size_t record(int in) { return record_bytes(sizeof(float) * round_up(in + 1, S::WIDTH)); }

    static void prepare(const float* x, int in, std::byte* record, size_t) {
        float* values = reinterpret_cast<float*>(record);
        values[in] = 0;  // the other half of the last pair
        by_vectors<S>(
            in, [&](int i) { S::store(values + i, round_bf16<S>(S::load(x + i))); },
            [&](int i, int left) { S::store(values + i, round_bf16<S>(S::load_part(x + i, left))); });
    }

    template <int STEP> static F weights(const uint32_t* words) {
        const auto pairs = S::loadi(words);
        if constexpr (STEP == 0) return S::as_float(S::template left<16>(pairs));
        return S::as_float(S::andi(pairs, S::seti(static_cast<int32_t>(0xffff0000))));
    }
};

// bf16 with bf16 instructions: pairs times pairs.
template <class S> struct PairProduct : FloatProduct<S> {
    using F = typename S::F;
    using I = typename S::I;
    static constexpr int GROUP = 2;
    static constexpr int STEPS = 1;
    using FloatProduct<S>::FloatProduct;

    static size_t record(int in) { return record_bytes(sizeof(uint16_t) * round_up(in, S::WIDTH)); }

    static void prepare(const float* x, int in, std::byte* record, size_t) {
        uint16_t* values = reinterpret_cast<uint16_t*>(record);
        by_vectors<S>(
            in, [&](int i) { S::store_halves(values + i, round_bf16<S>(S::load(x + i))); },
            [&](int i, int left) { S::store_halves(values + i, round_bf16<S>(S::load_part(x + i, left))); });
    }

    static I input(const std::byte* word) { return S::word(word); }
    template <int STEP> static I weights(const uint32_t* words) { return S::loadi(words); }
    static F add(F total, I input, I weights) { return S::dot_bf16(total, input, weights); }
};

template <class S> struct CodeProduct {
    using F = typename S::F;
    using I = typename S::I;
    using Sum = I;
    using Code = typename S::Code;
    static constexpr int GROUP = 4 / sizeof(Code);
    static constexpr int STEPS = 1;
    static constexpr int ROWS = S::ROWS;

    static size_t record(int in) { return record_bytes(sizeof(Code) * round_up(in, S::WIDTH)); }

    static void prepare(const float* x, int in, std::byte* record, size_t bytes) {
        Code* codes = reinterpret_cast<Code*>(record);
        const float scale = scale_of(x, in);
        *reinterpret_cast<float*>(record + bytes - sizeof(float)) = scale;
        // A value that is not finite makes the scale NaN, and so all results of the row.
        const float divisor = scale == scale ? scale : 1.f;
        const F divisors = S::set(divisor), inverse = S::set(1.f / divisor);
        by_vectors<S>(
            in, [&](int i) { S::store_codes(codes + i, S::to_int(S::divide_by(S::load(x + i), divisors, inverse))); },
            [&](int i, int left) {
                S::store_codes(codes + i, S::to_int(S::divide_by(S::load_part(x + i, left), divisors, inverse)));
            });
    }

    // The largest absolute value / 127; 1 where that is too small to divide by, NaN where a value is not finite.
    // Absolute values are compared as integers, which keeps their order and puts NaN last.
    static float scale_of(const float* x, int in) {
        constexpr int CHAINS = 4;
        I largest_bits[CHAINS] = {S::seti(0), S::seti(0), S::seti(0), S::seti(0)};
        const auto update = [&](int chain, F v) {
            largest_bits[chain] = S::maxi(largest_bits[chain], S::as_int(S::abs(v)));
        };
        int i = 0;
        for (; i + CHAINS * S::WIDTH <= in; i += CHAINS * S::WIDTH)
#pragma GCC unroll 8
            for (int j = 0; j < CHAINS; ++j) update(j, S::load(x + i + j * S::WIDTH));
        for (; i < in; i += S::WIDTH) update(0, load_up_to<S>(x + i, in - i < S::WIDTH ? in - i : S::WIDTH));
        largest_bits[0] = S::maxi(S::maxi(largest_bits[0], largest_bits[1]), S::maxi(largest_bits[2], largest_bits[3]));
        int32_t lanes[S::WIDTH], bits = 0;
        S::store(reinterpret_cast<float*>(lanes), S::as_float(largest_bits[0]));
        for (int32_t lane : lanes) bits = lane > bits ? lane : bits;
        if (bits >= 0x7f800000) return __builtin_nanf("");
        float largest;
        std::memcpy(&largest, &bits, sizeof largest);
        return largest / 127 < 0x1p-126f ? 1.f : largest / 127;
    }

    static I input(const std::byte* word) { return S::word(word); }
    template <int STEP> static I weights(const uint32_t* words) { return S::loadi(words); }
    static I add(I total, I input, I weights) { return S::dot(total, input, weights); }

    CodeProduct(const Packed& packed, int column)
        : bias_(packed.bias.data() + column),
          scales_(packed.scales.data() + column),
          sums_(packed.sums.data() + column) {}
    I start(int column) const { return S::loadi(sums_ + column); }
    static F scale(const std::byte* record, size_t bytes) {
        return S::as_float(S::word(record + bytes - sizeof(float)));
    }
    F answer(I total, F scale, int column) const {
        const F product = S::mul(S::mul(S::to_float(total), scale), S::load(scales_ + column));
        return S::add(product, S::load(bias_ + column));
    }

  private:
    const float *bias_, *scales_;
    const int32_t* sums_;
};

// Runs `rounds` times one product in each chain, all in registers. The chain's last value is one of the factors:
// otherwise the compiler would compute the product once, before the loop.
template <class S, class Product> double chained(int rounds, float* memory, const Product& product) {
    // More than the units have in flight at once; AVX-512 has 32 registers, the other sets have 16.
    constexpr int CHAINS = S::WIDTH == 16 ? 24 : 12;
    typename S::F chains[CHAINS];
    const auto factor = S::load(memory);
#pragma GCC unroll 24  // in all loops: an array with a variable index would be written to memory
    for (int i = 0; i < CHAINS; ++i) chains[i] = S::add(factor, S::set(static_cast<float>(i + 1)));
#pragma GCC unroll 1
    for (int round = 0; round < rounds; ++round)
#pragma GCC unroll 24
        for (int i = 0; i < CHAINS; ++i) chains[i] = product(chains[i], factor);
    auto sum = S::zero();
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; ++i) sum = S::add(sum, chains[i]);
    S::store(memory, sum);
    return static_cast<double>(rounds) * CHAINS * S::WIDTH;
}

// The roof that measurements are held against: the multipliers when nothing waits for memory → additions and
// multiplications. `memory` holds 16 zeros that the compiler does not know of; they keep all chains from overflowing.
template <class S> double peak(Dtype dtype, int rounds, float* memory) {
    using F = typename S::F;
    if (dtype == Dtype::i8) {
        constexpr int CODES = 4 / sizeof(typename S::Code);  // in a word
        return 2 * CODES * chained<S>(rounds, memory, [](F a, F b) {
                   return S::as_float(S::dot(S::as_int(a), S::as_int(a), S::as_int(b)));
               });
    }
    if constexpr (S::HAS_DOT_BF16)
        if (dtype == Dtype::bf16)
            return 4 * chained<S>(rounds, memory, [](F a, F b) { return S::dot_bf16(a, S::as_int(a), S::as_int(b)); });
    return 2 * chained<S>(rounds, memory, [](F a, F b) { return S::fma(a, b, a); });
}

}  // namespace
}  // namespace ziggurat
