// LayerNorm, alone or of sums.

namespace ziggurat {
namespace {

// Four sums at a time, for an addition waits for the one before it; in an order that depends on n alone.
template <class S, class Term> inline float sum_of(int n, Term term) {
    typename S::F totals[4] = {S::zero(), S::zero(), S::zero(), S::zero()};
    int i = 0;
    for (; i + 4 * S::WIDTH <= n; i += 4 * S::WIDTH)
        for (int j = 0; j < 4; ++j) totals[j] = S::add(totals[j], term(i + j * S::WIDTH, S::WIDTH));
    for (; i < n; i += S::WIDTH) totals[0] = S::add(totals[0], term(i, n - i < S::WIDTH ? n - i : S::WIDTH));
    return S::sum(S::add(S::add(totals[0], totals[1]), S::add(totals[2], totals[3])));
}

// y = norm(`value`), where `value(i, n)` gives n inputs from i on (zeros after them). Mean first, then the variance
// about it: the sum of squares less the square of the sum would lose digits.
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
        const float* other = residual[row];
        normalise<S>(y, d, norm,
                     [&](int i, int n) { return S::add(load_up_to<S>(y + i, n), load_up_to<S>(other + i, n)); });
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
