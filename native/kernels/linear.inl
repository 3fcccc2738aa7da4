// Linear maps: rows in blocks of up to P::ROWS, columns in panels of S::VECTORS vectors, with all sums of a block in
// registers.

namespace ziggurat {
namespace {

// take(r, v, start(r, v) + Σ over words k of left[r][k] * right[k][v]): the inner loop of linear maps and of attention.
// The R * V sums stay in registers for `start` and `take`, too: writing them to memory would cost a tenth of the loop.
template <class S, class P, int R, int V, class Start, class Take>
[[gnu::always_inline]] inline void accumulate(const std::byte* left, ptrdiff_t stride, const uint32_t* right, int words,
                                              const Start& start, const Take& take) {
    constexpr int WORD_BYTES = 4, WORDS = V * S::WIDTH;
    typename P::Sum sums[R][V];
    const std::byte* rows[R];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
        rows[r] = left + r * stride;
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) sums[r][v] = start(r, v);
    }
    const auto step = [&](auto part, ptrdiff_t offset, const uint32_t* words_of_step) {
        decltype(P::template weights<part.value>(right)) weights[V];
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) weights[v] = P::template weights<part.value>(words_of_step + v * S::WIDTH);
#pragma GCC unroll 8
        for (int r = 0; r < R; ++r) {
            const auto input = P::input(rows[r] + offset);
#pragma GCC unroll 8
            for (int v = 0; v < V; ++v) sums[r][v] = P::add(sums[r][v], input, weights[v]);
        }
    };
#pragma GCC unroll 1
    for (ptrdiff_t k = 0; k < words; ++k) {
        step(Number<0>{}, k * P::STEPS * WORD_BYTES, right + k * WORDS);
        if constexpr (P::STEPS == 2) step(Number<1>{}, (2 * k + 1) * WORD_BYTES, right + k * WORDS);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
        for (int v = 0; v < V; ++v) take(r, v, sums[r][v]);
}

// R rows of y in the panel that begins at `column`, all of its columns.
template <class S, class P, int R>
void block(const Packed& packed, const std::byte* records, size_t bytes, int column, float* y, ptrdiff_t stride) {
    constexpr int V = S::VECTORS;
    const int words = (packed.in + P::GROUP - 1) / P::GROUP;
    const P panel(packed, column);
    accumulate<S, P, R, V>(
        records, bytes, packed.weights.as<uint32_t>() + static_cast<size_t>(column) * words, words,
        [=](int, int v) { return panel.start(v * S::WIDTH); },
        [=](int r, int v, typename P::Sum total) {
            const auto answer = panel.answer(total, P::scale(records + r * bytes, bytes), v * S::WIDTH);
            S::store(y + r * stride + v * S::WIDTH, answer);
        });
}

template <class S, class P> struct Linear {
    using Block = void (*)(const Packed&, const std::byte*, size_t, int, float*, ptrdiff_t);
    static_assert(P::ROWS <= 6);
    static constexpr Block BLOCKS[] = {block<S, P, 1>, block<S, P, 2>, block<S, P, 3>,
                                       block<S, P, 4>, block<S, P, 5>, block<S, P, 6>};

    static size_t operand_size(const Packed& packed, int rows) { return P::record(packed.in) * rows; }

    static void prepare(const Packed& packed, Rows rows, void* operand) {
        const size_t bytes = P::record(packed.in);
        for (int i = 0; i < rows.n; ++i)
            P::prepare(rows[i], packed.in, static_cast<std::byte*>(operand) + i * bytes, bytes);
    }

    static void multiply(const Packed& packed, const void* operand, int rows, int from, int to, Finish how, float* y,
                         ptrdiff_t stride) {
        const size_t bytes = P::record(packed.in);
        const auto* records = static_cast<const std::byte*>(operand);
        // As many rows at a time as stay in the second-level cache while all panels are multiplied with them.
        constexpr size_t CACHE = 160 * 1024;
        const int most = static_cast<int>(CACHE / bytes / P::ROWS) * P::ROWS;
        for (int start = 0, n; start < rows; start += n) {
            n = even_share(rows - start, most > P::ROWS ? most : P::ROWS);
            for (int column = from; column < to; column += packed.panel) {
                const int columns = to - column < packed.panel ? to - column : packed.panel;
                panel(packed, records + start * bytes, bytes, n, column, columns, how, y + start * stride, stride);
            }
        }
    }

  private:
    static void panel(const Packed& packed, const std::byte* records, size_t bytes, int rows, int column, int columns,
                      Finish how, float* y, ptrdiff_t stride) {
        constexpr int PANEL = S::VECTORS * S::WIDTH;
        for (int i = 0, n; i < rows; i += n) {
            n = even_share(rows - i, P::ROWS);
            float* answers = y + i * stride + column;
            if (columns == PANEL) {
                BLOCKS[n - 1](packed, records + i * bytes, bytes, column, answers, stride);
            } else {
                float whole[P::ROWS * PANEL];  // y has no room for the columns that only fill the panel
                BLOCKS[n - 1](packed, records + i * bytes, bytes, column, whole, PANEL);
                for (int r = 0; r < n; ++r)
                    std::memcpy(answers + r * stride, whole + r * PANEL, sizeof(float) * columns);
            }
            if (how != Finish::none) finish<S>(how, answers, stride, n, columns);
        }
    }
};

}  // namespace
}  // namespace ziggurat
