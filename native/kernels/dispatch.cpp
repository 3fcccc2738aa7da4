// Which instruction sets this processor can run: it must report their flags, and they must reproduce the results of the
// scalar kernels. Slow is better than wrong. The test takes about a millisecond: small problems of odd sizes, every
// kernel and dtype.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/sets.h"

namespace ziggurat {
namespace {

using Floats = std::vector<float>;

// The same numbers on every machine, between -2 and 2.
Floats noise(size_t n, uint32_t seed) {
    Floats values(n);
    for (float& value : values) {
        seed = seed * 1664525u + 1013904223u;
        value = static_cast<float>(seed >> 8) * 0x1p-22f - 2.f;
    }
    return values;
}

bool close(const Floats& a, const Floats& b, float tolerance) {
    float size = 1;
    for (float x : b) size = std::fmax(size, std::fabs(x));
    for (size_t i = 0; i < a.size(); ++i)
        if (!(std::fabs(a[i] - b[i]) <= tolerance * size)) return false;
    return true;
}

Floats linear(const Kernels& set, Dtype dtype, Finish finish, int rows) {
    constexpr int in = 75, out = 83;
    const Floats weight = noise(in * out, 1), bias = noise(out, 2);
    Floats x = noise(static_cast<size_t>(rows) * in, 3), y(static_cast<size_t>(rows) * out);
    for (int k = 0; k < in; ++k) x[k] = 0;
    const Packed packed = set.pack(weight.data(), bias.data(), out, in, dtype);
    Buffer operand(set.operand_size(packed, rows));
    set.prepare(packed, {x.data(), in, nullptr, rows}, operand.as<void>());
    set.multiply(packed, operand.as<void>(), rows, 0, out, finish, y.data(), out);
    return y;
}

// Context, then received attention.
Floats attention(const Kernels& set, int n, int width, const std::vector<Span>& visible = {}) {
    constexpr int heads = 2;
    const ptrdiff_t d = heads * width;
    const Floats qkv = noise(n * 3 * d, 4);
    Floats answers(n * d + heads * n);
    Buffer scratch(set.attend_scratch(n, width));
    for (int head = 0; head < heads; ++head)
        set.attend({qkv.data(), 3 * d, n, heads, width, visible.empty() ? nullptr : visible.data()}, head,
                   answers.data(), d, answers.data() + n * d + head * n, head == 1, scratch.as<void>());
    return answers;
}

Floats first_attention(const Kernels& set, int n, int width) {
    constexpr int heads = 2;
    const ptrdiff_t d = heads * width;
    const Floats query = noise(d, 5), key_value = noise(n * 2 * d, 6);
    Floats context(d);
    Buffer scratch(set.attend_scratch(n, width));
    set.attend_first(query.data(), key_value.data(), 2 * d, n, heads, width, context.data(), scratch.as<void>());
    return context;
}

Floats norms(const Kernels& set, int rows, int d) {
    const Floats gain = noise(d, 7), shift = noise(d, 8), a = noise(rows * d, 9), b = noise(rows * d, 10);
    Floats y(rows * d);
    const Norm norm{gain.data(), shift.data(), 1e-12f};
    const Rows first{a.data(), d, nullptr, rows}, second{b.data(), d, nullptr, rows};
    set.embed(first, second, first, d, norm, y.data(), d);
    set.add_norm(y.data(), d, second, rows, d, norm);
    return y;
}

Floats rotations_and_gates(const Kernels& set, int rows, int width) {
    constexpr int heads = 2;
    const Floats table = noise(rows * width, 11);
    Floats x = noise(rows * heads * width, 12);
    set.rotate(x.data(), heads * width, {table.data(), width, nullptr, rows}, heads, width);
    for (Finish finish : {Finish::gelu, Finish::gelu_tanh}) set.gate(finish, x.data(), heads * width, rows, width);
    return x;
}

// Each token sees itself, the nine tokens before it and the nine after it.
std::vector<Span> windows(int n) {
    std::vector<Span> visible;
    for (int i = 0; i < n; ++i) visible.push_back({std::max(0, i - 9), std::min(n, i + 10)});
    return visible;
}

}  // namespace

bool agrees_with_scalar(const Kernels& candidate) {
    const Kernels& scalar = scalar_kernels;
    constexpr float TOLERANCE = 1e-5f;
    for (int rows : {1, 9})
        for (Dtype dtype : {Dtype::f32, Dtype::bf16, Dtype::i8})
            for (Finish finish : {Finish::none, Finish::gelu, Finish::gelu_tanh, Finish::tanh, Finish::relu}) {
                const float tolerance = dtype == Dtype::i8 && finish == Finish::none ? 0.f : TOLERANCE;
                const Floats expected = linear(scalar, dtype, finish, rows);
                if (!close(linear(candidate, dtype, finish, rows), expected, tolerance)) return false;
            }
    const std::vector<Span> visible = windows(97);
    for (int width : {12, 32, 64}) {
        if (!close(attention(candidate, 37, width), attention(scalar, 37, width), TOLERANCE)) return false;
        if (!close(attention(candidate, 97, width, visible), attention(scalar, 97, width, visible), TOLERANCE))
            return false;
    }
    for (int width : {10, 26, 64})
        if (!close(rotations_and_gates(candidate, 3, width), rotations_and_gates(scalar, 3, width), TOLERANCE))
            return false;
    return close(first_attention(candidate, 21, 20), first_attention(scalar, 21, 20), TOLERANCE) &&
           close(norms(candidate, 3, 83), norms(scalar, 3, 83), TOLERANCE);
}

namespace {

std::vector<const Kernels*> available() {
    std::vector<const Kernels*> sets;
    const auto offer = [&](bool can_run, const Kernels& set) {
        if (can_run && agrees_with_scalar(set)) sets.push_back(&set);
    };
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni");
    offer(avx512 && __builtin_cpu_supports("avx512bf16"), avx512bf16_kernels);
    offer(avx512, avx512_kernels);
    offer(avx2, avx2_kernels);
#endif
    sets.push_back(&scalar_kernels);
    return sets;
}

}  // namespace

const std::vector<const Kernels*>& kernels() {
    static const std::vector<const Kernels*> sets = available();
    return sets;
}

}  // namespace ziggurat
