// What tells the dtypes apart: how a row of inputs is written down, and how a word of it is multiplied with weights.
//
// A prepared row is a record: its values, zeros up to whole vectors, and at the end the row's scale. Records follow each
// other; none depends on another.

namespace ziggurat {
namespace {

// Records of whole cache lines, but not of a multiple of 512 bytes: those would compete for the same few lines of a cache.
inline size_t record_bytes(size_t values) {
    const size_t bytes = round_up(values + sizeof(float), LINE);
    return bytes % 512 ? bytes : bytes + LINE;
}

template <class S> struct FloatProduct {
    using F = typename S::F;
    using Sum = F;
    static constexpr int GROUP = 1;  // inputs whose weights share a word
    static constexpr int STEPS = 1;  // words of a record that meet one word of weights
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

    // Of a panel that begins at this column; its columns count from there.
    FloatProduct(const Packed& packed, int column) : bias_(packed.bias.data() + column) {}
    F start(int) const { return S::zero(); }
    static F scale(const std::byte*, size_t) { return S::zero(); }
    F answer(F total, F, int column) const { return S::add(total, S::load(bias_ + column)); }

  private:
    const float* bias_;
};

// To the nearest bf16, halves to even, as floats.
template <class S> inline typename S::F round_bf16(typename S::F x) {
    const auto bits = S::as_int(x);
    const auto odd = S::andi(S::template right<16>(bits), S::seti(1));
    const auto rounded = S::addi(bits, S::addi(odd, S::seti(0x7fff)));
    return S::keep_nan(S::as_float(S::andi(rounded, S::seti(static_cast<int32_t>(0xffff0000)))), x);
}

// bf16 without instructions for it: weights become floats when they are loaded, inputs are floats that were rounded.
template <class S> struct WideProduct : FloatProduct<S> {
    using F = typename S::F;
    static constexpr int GROUP = 2;
    static constexpr int STEPS = 2;
    static constexpr int ROWS = S::ROWS - 1;  // taking words apart needs registers too
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

// bf16 with them: pairs times pairs.
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
        // What is not finite spoils the row by its scale.
        const float divisor = scale == scale ? scale : 1.f;
        const F by = S::set(divisor), inverse = S::set(1.f / divisor);
        by_vectors<S>(
            in, [&](int i) { S::store_codes(codes + i, S::to_int(S::divide_by(S::load(x + i), by, inverse))); },
            [&](int i, int left) {
                S::store_codes(codes + i, S::to_int(S::divide_by(S::load_part(x + i, left), by, inverse)));
            });
    }

    // The largest absolute value / 127; 1 where that is too small to divide by, NaN where a value is not finite. Compared
    // as whole numbers, floats without their signs keep their order, and NaN comes last.
    static float scale_of(const float* x, int in) {
        constexpr int CHAINS = 4;
        I most[CHAINS] = {S::seti(0), S::seti(0), S::seti(0), S::seti(0)};
        const auto see = [&](int chain, F v) { most[chain] = S::maxi(most[chain], S::as_int(S::abs(v))); };
        int i = 0;
        for (; i + CHAINS * S::WIDTH <= in; i += CHAINS * S::WIDTH)
#pragma GCC unroll 8
            for (int j = 0; j < CHAINS; ++j) see(j, S::load(x + i + j * S::WIDTH));
        for (; i < in; i += S::WIDTH) see(0, load_up_to<S>(x + i, in - i < S::WIDTH ? in - i : S::WIDTH));
        most[0] = S::maxi(S::maxi(most[0], most[1]), S::maxi(most[2], most[3]));
        int32_t lanes[S::WIDTH], bits = 0;
        S::store(reinterpret_cast<float*>(lanes), S::as_float(most[0]));
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

}  // namespace
}  // namespace ziggurat
