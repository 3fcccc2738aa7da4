// Softmax attention. The keys and values of a head are packed like weights. Then each block of queries computes scores,
// probabilities and context, and adds to the attention that each token receives. Scores stay in the first caches.

namespace ziggurat {
namespace {

template <class S> struct Attend {
    using F = typename S::F;
    using P = FloatProduct<S>;
    static constexpr float MASKED = -3e38f;

    // How scratch is divided. Keys: chunks of up to VECTORS vectors of tokens; a chunk has one row per column of the
    // head. Values: chunks of columns; a chunk has one row per token.
    struct Plan {
        int n, width, padded_n, padded_width;
        ptrdiff_t query_stride, score_stride;
        float *keys, *values, *queries, *scores;

        Plan(int tokens, int head_width, void* scratch)
            : n(tokens),
              width(head_width),
              padded_n(up(n)),
              padded_width(up(width)),
              query_stride(padded_width),
              score_stride(padded_n + 16),
              keys(static_cast<float*>(scratch)),
              values(keys + static_cast<size_t>(padded_n) * padded_width),
              queries(values + static_cast<size_t>(padded_n) * padded_width),
              scores(queries + S::ROWS * query_stride) {}
        static int up(int count) { return (count + S::WIDTH - 1) / S::WIDTH * S::WIDTH; }
    };

    static size_t scratch(int n, int width) {
        const size_t padded_n = Plan::up(n), padded_width = Plan::up(width);
        return sizeof(float) * (2 * padded_n * padded_width + S::ROWS * (padded_width + padded_n + 16));
    }

    // Divides `lanes` into chunks of vectors, the widest first. Calls `chunk(first lane, Number<vectors>)` for the
    // chunks that hold the lanes of `wanted`, and perhaps for some before them. Returns the lanes of these chunks.
    template <class Chunk> static Span in_chunks(int lanes, Span wanted, Chunk chunk) {
        constexpr int WIDEST = S::VECTORS * S::WIDTH;
        const int all = lanes / WIDEST, before = wanted.from / WIDEST, start = (before < all ? before : all) * WIDEST;
        int i = start;
        for (; i < wanted.to && i + WIDEST <= lanes; i += WIDEST) chunk(i, Number<S::VECTORS>{});
        if constexpr (S::VECTORS > 2)
            for (; i < wanted.to && i + 2 * S::WIDTH <= lanes; i += 2 * S::WIDTH) chunk(i, Number<2>{});
        for (; i < wanted.to; i += S::WIDTH) chunk(i, Number<1>{});
        return {start, i};
    }

    template <class Chunk> static void in_chunks(int lanes, Chunk chunk) { in_chunks(lanes, {0, lanes}, chunk); }

    static void pack_keys(const float* key, ptrdiff_t stride, const Plan& plan) {
        in_chunks(plan.padded_n, [&](int first, auto vectors) {
            constexpr int STEP = vectors.value * S::WIDTH;
            float* target = plan.keys + static_cast<ptrdiff_t>(first) * plan.width;
            for (int j = 0; j < STEP; j += S::WIDTH)
                pack_vector_of_keys(key, stride, plan, first + j, target + j, STEP);
        });
    }

    static void pack_vector_of_keys(const float* key, ptrdiff_t stride, const Plan& plan, int first, float* target,
                                    ptrdiff_t step) {
        const float* rows[S::WIDTH];
        // Lanes beyond the last token repeat it; their scores are masked later.
        for (int i = 0; i < S::WIDTH; ++i) rows[i] = key + stride * (first + i < plan.n ? first + i : plan.n - 1);
        int column = 0;
        for (; column + S::WIDTH <= plan.width; column += S::WIDTH)
            S::transpose(rows, column, target + column * step, step);
        for (; column < plan.width; ++column)
            for (int i = 0; i < S::WIDTH; ++i) target[column * step + i] = rows[i][column];
    }

    static void pack_values(const float* value, ptrdiff_t stride, const Plan& plan) {
        in_chunks(plan.padded_width, [&](int first, auto vectors) {
            constexpr int STEP = vectors.value * S::WIDTH;
            float* target = plan.values + static_cast<ptrdiff_t>(first) * plan.n;
            const int columns = plan.width - first < STEP ? plan.width - first : STEP;
            for (int j = 0; j < plan.n; ++j, target += STEP) {
                const float* source = value + j * stride + first;
                by_vectors<S>(
                    columns, [&](int i) { S::store(target + i, S::load(source + i)); },
                    [&](int i, int left) { S::store(target + i, S::load_part(source + i, left)); });
            }
        });
    }

    // Queries times log2(e) / √width, so that the softmax can use powers of two.
    template <int R> static void pack_queries(const float* query, ptrdiff_t stride, const Plan& plan) {
        const F scale = S::set(LOG2_E / __builtin_sqrtf(static_cast<float>(plan.width)));
        for (int r = 0; r < R; ++r) {
            const float* source = query + r * stride;
            float* target = plan.queries + r * plan.query_stride;
            by_vectors<S>(
                plan.width, [&](int i) { S::store(target + i, S::mul(S::load(source + i), scale)); },
                [&](int i, int left) { S::store(target + i, S::mul(S::load_part(source + i, left), scale)); });
        }
    }

    // Scores of R queries and the keys of `wanted`, and the best score of each; returns which lanes of scores were
    // written.
    template <int R> static Span score(const Plan& plan, Span wanted, F (&best)[R]) {
        float padding[S::WIDTH];  // added to the scores of the last vector
        for (int i = 0; i < S::WIDTH; ++i) padding[i] = plan.padded_n - S::WIDTH + i < plan.n ? 0.f : MASKED;
        for (int r = 0; r < R; ++r) best[r] = S::set(MASKED);
        return in_chunks(plan.padded_n, wanted, [&](int first, auto vectors) {
            constexpr int V = vectors.value;
            const F last = first + V * S::WIDTH == plan.padded_n ? S::load(padding) : S::zero();
            accumulate<S, P, R, V>(
                bytes_of(plan.queries), plan.query_stride * 4,
                words_of(plan.keys + static_cast<ptrdiff_t>(first) * plan.width), plan.width,
                [&](int, int v) { return v + 1 < V ? S::zero() : last; },
                [&](int r, int v, F total) {
                    best[r] = S::max(best[r], total);
                    S::store(plan.scores + r * plan.score_stride + first + v * S::WIDTH, total);
                });
        });
    }

    // Masks the scores of tokens that a query does not see; returns the best of the others.
    static float mask(float* scores, Span lanes, Span seen) {
        for (int j = lanes.from; j < seen.from; ++j) scores[j] = MASKED;
        for (int j = seen.to; j < lanes.to; ++j) scores[j] = MASKED;
        F best = S::set(MASKED);
        for (int j = lanes.from; j < lanes.to; j += S::WIDTH) best = S::max(best, S::load(scores + j));
        return S::greatest(best);
    }

    // Replaces scores by their powers; returns 1 / (sum of the powers).
    static float exponentiate(float* scores, int lanes, float best) {
        const F highest = S::set(best);
        F total = S::zero();
        for (int j = 0; j < lanes; j += S::WIDTH) {
            const F power = exp2<S>(S::sub(S::load(scores + j), highest));
            S::store(scores + j, power);
            total = S::add(total, power);
        }
        return 1.f / S::sum(total);
    }

    template <int R>
    static void mix_values(const Plan& plan, Span tokens, const float (&inverse)[R], float* context,
                           ptrdiff_t context_stride) {
        in_chunks(plan.padded_width, [&](int first, auto vectors) {
            constexpr int V = vectors.value;
            const float* values = plan.values + static_cast<ptrdiff_t>(first) * plan.n +
                                  static_cast<ptrdiff_t>(tokens.from) * V * S::WIDTH;
            accumulate<S, P, R, V>(
                bytes_of(plan.scores + tokens.from), plan.score_stride * 4, words_of(values), tokens.size(),
                [](int, int) { return S::zero(); },
                [&](int r, int v, F total) {
                    const int column = first + v * S::WIDTH, left = plan.width - column;
                    const F answer = S::mul(total, S::set(inverse[r]));
                    store_up_to<S>(context + r * context_stride + column, answer, left < S::WIDTH ? left : S::WIDTH);
                });
        });
    }

    template <int R>
    static void add_received(const Plan& plan, Span tokens, const float (&weights)[R], float* received) {
        F shares[R];
        for (int r = 0; r < R; ++r) shares[r] = S::set(weights[r]);
        for (int j = tokens.from; j < tokens.to; j += S::WIDTH) {
            const int left = tokens.to - j < S::WIDTH ? tokens.to - j : S::WIDTH;
            F total = load_up_to<S>(received + j, left);
            for (int r = 0; r < R; ++r)
                total = S::fma(S::load(plan.scores + r * plan.score_stride + j), shares[r], total);
            store_up_to<S>(received + j, total, left);
        }
    }

    template <int R>
    static void block(const Plan& plan, const float* query, ptrdiff_t stride, const Span* seen, int first,
                      float* context, ptrdiff_t context_stride, float* received, bool from_others) {
        pack_queries<R>(query + first * stride, stride, plan);
        F best[R];
        const Span wanted = seen ? Span{seen[first].from, seen[first + R - 1].to} : Span{0, plan.n};
        const Span lanes = score<R>(plan, wanted, best), tokens{lanes.from, lanes.to < plan.n ? lanes.to : plan.n};
        float inverse[R];
        for (int r = 0; r < R; ++r) {
            float* scores = plan.scores + r * plan.score_stride;
            const float highest = seen ? mask(scores, lanes, seen[first + r]) : S::greatest(best[r]);
            inverse[r] = exponentiate(scores + lanes.from, lanes.size(), highest);
        }
        if (context) mix_values<R>(plan, tokens, inverse, context + first * context_stride, context_stride);
        if (!received) return;
        for (int r = 0; r < R; ++r) {
            if (from_others) plan.scores[r * plan.score_stride + first + r] = 0;
            if (seen) inverse[r] *= static_cast<float>(seen[first + r].size());
        }
        add_received<R>(plan, tokens, inverse, received);
    }

    static void attend(const Attention& sequence, int head, float* context, ptrdiff_t context_stride, float* received,
                       bool from_others, void* scratch) {
        using Block = void (*)(const Plan&, const float*, ptrdiff_t, const Span*, int, float*, ptrdiff_t, float*, bool);
        static constexpr Block BLOCKS[] = {block<1>, block<2>, block<3>, block<4>, block<5>, block<6>};
        const Plan plan(sequence.n, sequence.width, scratch);
        const ptrdiff_t d = static_cast<ptrdiff_t>(sequence.heads) * sequence.width;
        const float* query = sequence.qkv + static_cast<ptrdiff_t>(head) * sequence.width;
        pack_keys(query + d, sequence.stride, plan);
        if (context) {
            pack_values(query + 2 * d, sequence.stride, plan);
            context += head * sequence.width;
        }
        if (received) std::memset(received, 0, sizeof(float) * sequence.n);
        for (int i = 0, n; i < sequence.n; i += n) {
            n = even_share(sequence.n - i, S::ROWS);
            BLOCKS[n - 1](plan, query, sequence.stride, sequence.seen, i, context, context_stride, received,
                          from_others);
        }
    }

    static void attend_first(const float* query, const float* key_value, ptrdiff_t stride, int n, int heads, int width,
                             float* context, void* scratch) {
        const Plan plan(n, width, scratch);
        const ptrdiff_t d = static_cast<ptrdiff_t>(heads) * width;
        for (int head = 0; head < heads; ++head) {
            const float *key = key_value + head * width, *value = key + d;
            pack_queries<1>(query + head * width, 0, plan);
            for (int j = 0; j < plan.padded_n; ++j)
                plan.scores[j] = j < n ? dot(plan.queries, key + j * stride, width) : MASKED;
            F best = S::set(MASKED);
            for (int j = 0; j < plan.padded_n; j += S::WIDTH) best = S::max(best, S::load(plan.scores + j));
            const F share = S::set(exponentiate(plan.scores, plan.padded_n, S::greatest(best)));
            for (int column = 0; column < width; column += S::WIDTH) {
                const int left = width - column < S::WIDTH ? width - column : S::WIDTH;
                F total = S::zero();
                for (int j = 0; j < n; ++j)
                    total = S::fma(S::set(plan.scores[j]), load_up_to<S>(value + j * stride + column, left), total);
                store_up_to<S>(context + head * width + column, S::mul(total, share), left);
            }
        }
    }

  private:
    static const std::byte* bytes_of(const float* p) { return reinterpret_cast<const std::byte*>(p); }
    static const uint32_t* words_of(const float* p) { return reinterpret_cast<const uint32_t*>(p); }

    static float dot(const float* a, const float* b, int n) {
        return sum_of<S>(
            n, [&](int i, int left) { return S::mul(load_up_to<S>(a + i, left), load_up_to<S>(b + i, left)); });
    }
};

}  // namespace
}  // namespace ziggurat
