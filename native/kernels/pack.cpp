// Brings weights into the order in which the kernels read them. Compiled for any processor, because it runs once per
// model.
#include <cmath>
#include <cstring>

#include "kernels/sets.h"

namespace ziggurat {
namespace {

struct Codes {
    float scale;
    int32_t sum;
};

uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}

uint16_t to_bf16(float x) {
    if (x != x) return 0x7fc0;
    const uint32_t bits = bits_of(x);
    return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The largest absolute value / 127; 1 where that is too small to divide by, NaN where a value is not finite.
float scale_of(const float* weight, int in) {
    uint32_t largest_bits = 0;
    for (int k = 0; k < in; ++k) largest_bits = std::max(largest_bits, bits_of(weight[k]) & 0x7fffffffu);
    if (largest_bits >= 0x7f800000u) return std::nanf("");
    float largest;
    std::memcpy(&largest, &largest_bits, sizeof largest);
    return largest / 127 < 0x1p-126f ? 1.f : largest / 127;
}

template <class Code> Codes encode(const float* weight, int in, Code* codes) {
    // Adding 1.5 * 2^23 rounds to whole numbers, halves to even.
    constexpr float magic = 12582912.f;
    const float scale = scale_of(weight, in);
    int32_t sum = 0;
    for (int k = 0; k < in; ++k) {
        const float code = scale == scale ? (weight[k] / scale + magic) - magic : 0.f;
        codes[k] = static_cast<Code>(code);
        sum += codes[k];
    }
    return {scale, sum};
}

// The weights of one output as words; parts of a word beyond the last input stay 0.
Codes to_words(const float* weight, int in, Dtype dtype, const Layout& layout, uint32_t* words) {
    if (dtype == Dtype::f32) std::memcpy(words, weight, sizeof(float) * in);
    if (dtype == Dtype::bf16) {
        auto* halves = reinterpret_cast<unsigned char*>(words);
        for (int k = 0; k < in; ++k) {
            const uint16_t half = to_bf16(weight[k]);
            std::memcpy(halves + sizeof half * k, &half, sizeof half);
        }
    }
    if (dtype != Dtype::i8) return {1.f, 0};
    return layout.code_bytes == 1 ? encode(weight, in, reinterpret_cast<int8_t*>(words))
                                  : encode(weight, in, reinterpret_cast<int16_t*>(words));
}

int inputs_per_word(Dtype dtype, const Layout& layout) {
    return dtype == Dtype::f32 ? 1 : dtype == Dtype::bf16 ? 2 : 4 / layout.code_bytes;
}

Packed pack(const float* weight, const float* bias, int out, int in, Dtype dtype, const Layout& layout) {
    const int group = inputs_per_word(dtype, layout), words = (in + group - 1) / group;
    const size_t columns = round_up(out, layout.panel);
    Packed packed{in, out, layout.panel, dtype, Buffer(columns * words * sizeof(uint32_t)), {}, {}, {}};
    packed.bias.assign(columns, 0.f);
    if (bias) std::copy(bias, bias + out, packed.bias.begin());
    if (dtype == Dtype::i8) {
        packed.scales.assign(columns, 1.f);
        packed.sums.assign(columns, 0);
    }
    std::vector<uint32_t> channel(words);
    for (size_t j = 0; j < columns; ++j) {
        uint32_t* target = packed.weights.as<uint32_t>() + j / layout.panel * layout.panel * words + j % layout.panel;
        std::fill(channel.begin(), channel.end(), 0u);
        if (j < static_cast<size_t>(out)) {
            const Codes codes = to_words(weight + j * in, in, dtype, layout, channel.data());
            if (dtype == Dtype::i8) {
                packed.scales[j] = codes.scale;
                packed.sums[j] = -layout.offset * codes.sum;  // a sum starts here, to undo the offset of activations
            }
        }
        for (int k = 0; k < words; ++k) target[static_cast<size_t>(k) * layout.panel] = channel[k];
    }
    return packed;
}

}  // namespace

Packed pack_pairs16(const float* weight, const float* bias, int out, int in, Dtype dtype) {
    return pack(weight, bias, out, in, dtype, PairLayout16::value);
}

Packed pack_quads64(const float* weight, const float* bias, int out, int in, Dtype dtype) {
    return pack(weight, bias, out, in, dtype, QuadLayout64::value);
}

}  // namespace ziggurat
