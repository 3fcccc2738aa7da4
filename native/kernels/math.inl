// Functions of vectors and of rows: powers, activations, gates, rotary positions, LayerNorm. S is the instruction set.

namespace ziggurat {
namespace {

// 2^t with a relative error of 1.5e-7, for -126 <= t < 127.5.
template <class S> inline typename S::F exp2_within(typename S::F t) {
    using F = typename S::F;
    // Adding 1.5 * 2^23 rounds to whole numbers, which then stand in the lowest bits.
    const F magic = S::set(12582912.f);
    const F shifted = S::add(t, magic);
    const F rest = S::sub(t, S::sub(shifted, magic));
    F p = S::fma(S::set(0.001326472731307149f), rest, S::set(0.009671512991189957f));
    p = S::fma(p, rest, S::set(0.05550733581185341f));
    p = S::fma(p, rest, S::set(0.24022242426872253f));
    p = S::fma(p, rest, S::set(0.6931470036506653f));
    p = S::fma(p, rest, S::set(1.f));
    // Multiplies by 2 to the power of the whole number by adding it to the exponent: the multipliers are busy enough.
    return S::as_float(S::addi(S::as_int(p), S::template left<23>(S::as_int(shifted))));
}

// 2^t for t < 127.5; below -126 the result is 2^-126, which a sum that contains a 1 cannot tell from 0.
template <class S> inline typename S::F exp2(typename S::F t) { return exp2_within<S>(S::max(S::set(-126.f), t)); }

constexpr float LOG2_E = 1.4426950408889634f;

// x Φ(x) = max(x, 0) - |x| Φ(-|x|), and log2 Φ(-t) is nearly a parabola. The error is 1e-7.
template <class S> inline typename S::F gelu(typename S::F x) {
    using F = typename S::F;
    const F t = S::min(S::set(6.f), S::abs(x));
    F p = S::fma(S::set(3.177488179062493e-05f), t, S::set(-0.0007569157751277089f));
    p = S::fma(p, t, S::set(0.008036973886191845f));
    p = S::fma(p, t, S::set(-0.053337402641773224f));
    p = S::fma(p, t, S::set(-0.45883432030677795f));
    p = S::fma(p, t, S::set(-1.151177167892456f));
    p = S::fma(p, t, S::set(-0.9999963045120239f));
    const F positive = S::as_float(S::maxi(S::as_int(x), S::as_int(S::zero())));
    return S::sub(positive, S::mul(t, exp2_within<S>(p)));
}

// x / (1 + exp(-2 √(2/π) (x + 0.044715 x³)))
template <class S> inline typename S::F gelu_tanh(typename S::F x) {
    using F = typename S::F;
    constexpr float scale = -2 * 0.7978845608028654f * LOG2_E;
    const F inner = S::fma(S::mul(x, x), S::set(0.044715f * scale), S::set(scale));
    return S::div(x, S::add(S::set(1.f), exp2<S>(S::min(S::set(126.f), S::mul(x, inner)))));
}

// 1 - 2 / (exp(2 x) + 1), with an error of 1e-7.
template <class S> inline typename S::F tanh(typename S::F x) {
    using F = typename S::F;
    const F power = exp2<S>(S::min(S::set(126.f), S::mul(x, S::set(2 * LOG2_E))));
    return S::sub(S::set(1.f), S::div(S::set(2.f), S::add(power, S::set(1.f))));
}

template <class S> inline typename S::F load_up_to(const float* p, int n) {
    return n == S::WIDTH ? S::load(p) : S::load_part(p, n);
}

template <class S> inline void store_up_to(float* p, typename S::F v, int n) {
    n == S::WIDTH ? S::store(p, v) : S::store_part(p, v, n);
}

// The first n lanes, zeros after them.
template <class S> inline typename S::F first_of(typename S::F v, int n) {
    float lanes[S::WIDTH];
    S::store(lanes, v);
    return S::load_part(lanes, n);
}

// Calls `whole(i)` for each whole vector of 0 … n, then `part(i, count)` for the rest.
template <class S, class Whole, class Part> inline void by_vectors(int n, Whole whole, Part part) {
    int i = 0;
    for (; i + S::WIDTH <= n; i += S::WIDTH) whole(i);
    if (i < n) part(i, n - i);
}

template <class S, class Function>
inline void apply(float* y, ptrdiff_t stride, int rows, int columns, Function function) {
    for (int row = 0; row < rows; ++row, y += stride)
        by_vectors<S>(
            columns, [&](int i) { S::store(y + i, function(S::load(y + i))); },
            [&](int i, int left) { S::store_part(y + i, function(S::load_part(y + i, left)), left); });
}

template <class S> void finish(Finish how, float* y, ptrdiff_t stride, int rows, int columns) {
    const auto all = [&](auto function) { apply<S>(y, stride, rows, columns, function); };
    if (how == Finish::gelu) all([](auto x) { return gelu<S>(x); });
    if (how == Finish::gelu_tanh) all([](auto x) { return gelu_tanh<S>(x); });
    if (how == Finish::tanh) all([](auto x) { return tanh<S>(x); });
    if (how == Finish::relu) all([](auto x) { return S::max(S::set(0.f), x); });
}

template <class S, class Function> inline void apply_gate(float* y, const float* gate, int n, Function function) {
    by_vectors<S>(
        n, [&](int i) { S::store(y + i, S::mul(function(S::load(y + i)), S::load(gate + i))); },
        [&](int i, int left) {
            S::store_part(y + i, S::mul(function(S::load_part(y + i, left)), S::load_part(gate + i, left)), left);
        });
}

template <class S> void gate(Finish how, float* y, ptrdiff_t stride, int rows, int columns) {
    for (int i = 0; i < rows; ++i, y += stride) {
        if (how == Finish::gelu) apply_gate<S>(y, y + columns, columns, [](auto x) { return gelu<S>(x); });
        if (how == Finish::gelu_tanh) apply_gate<S>(y, y + columns, columns, [](auto x) { return gelu_tanh<S>(x); });
        if (how == Finish::relu) apply_gate<S>(y, y + columns, columns, [](auto x) { return S::max(S::set(0.f), x); });
    }
}

template <class S> void rotate(float* x, ptrdiff_t stride, Rows table, int heads, int width) {
    using F = typename S::F;
    const int half = width / 2;
    for (int row = 0; row < table.n; ++row, x += stride) {
        const float* angles = table[row];
        for (int i = 0; i < half; i += S::WIDTH) {
            const int n = half - i < S::WIDTH ? half - i : S::WIDTH;
            const F cosine = load_up_to<S>(angles + i, n), sine = load_up_to<S>(angles + half + i, n);
            for (int head = 0; head < heads; ++head) {
                float *low = x + head * width + i, *high = low + half;
                const F a = load_up_to<S>(low, n), b = load_up_to<S>(high, n);
                store_up_to<S>(low, S::sub(S::mul(a, cosine), S::mul(b, sine)), n);
                store_up_to<S>(high, S::fma(b, cosine, S::mul(a, sine)), n);
            }
        }
    }
}

// Four sums at a time, because an addition waits for the one before it. The order depends on n only.
template <class S, class Term> inline float sum_of(int n, Term term) {
    typename S::F totals[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
    int i = 0;
    for (; i + 4 * S::WIDTH <= n; i += 4 * S::WIDTH)
        for (int j = 0; j < 4; ++j) totals[j] = S::add(totals[j], term(i + j * S::WIDTH, S::WIDTH));
    for (; i < n; i += S::WIDTH) totals[0] = S::add(totals[0], term(i, n - i < S::WIDTH ? n - i : S::WIDTH));
    return S::sum(S::add(S::add(totals[0], totals[1]), S::add(totals[2], totals[3])));
}

// y = LayerNorm(`value`), where `value(i, n)` gives n inputs from i on (zeros after them). First the mean, then the
// variance around it: the sum of squares minus the square of the sum would lose digits.
template <class S, class Value> inline void normalise(float* y, int d, const Norm& norm, Value value) {
    using F = typename S::F;
    const float total = sum_of<S>(d, [&](int i, int n) {
        const F x = value(i, n);
        store_up_to<S>(y + i, x, n);
        return x;
    });
    const F mean = S::set(total / d);
    const float squares = sum_of<S>(d, [&](int i, int n) {
        const F x = S::sub(load_up_to<S>(y + i, n), n == S::WIDTH ? mean : first_of<S>(mean, n));
        return S::mul(x, x);
    });
    const F scale = S::set(1.f / __builtin_sqrtf(squares / d + norm.epsilon));
    for (int i = 0; i < d; i += S::WIDTH) {
        const int n = d - i < S::WIDTH ? d - i : S::WIDTH;
        const F x = S::mul(S::sub(load_up_to<S>(y + i, n), mean), scale);
        store_up_to<S>(y + i, S::fma(x, load_up_to<S>(norm.gain + i, n), load_up_to<S>(norm.shift + i, n)), n);
    }
}

template <class S> void add_norm(float* y, ptrdiff_t stride, Rows residual, int rows, int d, const Norm& norm) {
    for (int row = 0; row < rows; ++row, y += stride) {
        if (!residual.data) {
            normalise<S>(y, d, norm, [&](int i, int n) { return load_up_to<S>(y + i, n); });
            continue;
        }
        const float* added = residual[row];
        normalise<S>(y, d, norm,
                     [&](int i, int n) { return S::add(load_up_to<S>(y + i, n), load_up_to<S>(added + i, n)); });
    }
}

template <class S>
void embed(Rows word, Rows position, Rows segment, int d, const Norm& norm, float* y, ptrdiff_t stride) {
    for (int row = 0; row < word.n; ++row, y += stride) {
        const float *a = word[row], *b = position[row], *c = segment[row];
        normalise<S>(y, d, norm, [&](int i, int n) {
            return S::add(S::add(load_up_to<S>(a + i, n), load_up_to<S>(b + i, n)), load_up_to<S>(c + i, n));
        });
    }
}

}  // namespace
}  // namespace ziggurat
