// The attention of a layer: queries, keys and values, which tokens see each other, and how much attention each
// received.
#include <algorithm>

#include "engine/pass.h"

namespace ziggurat {

namespace {

constexpr int PAIRS_PER_BLOCK = 12;  // (sequence, head) pairs that one thread takes at a time, at most: lengths differ
constexpr int LONG_SEQUENCE = 512;   // tokens; from this length on, threads take pairs one by one

int longest(const Edges& edges) {
    int max_length = 0;
    for (int i = 0; i < count(edges); ++i) max_length = std::max(max_length, edges[i + 1] - edges[i]);
    return max_length;
}

}  // namespace

// Columns from … to of queries, keys and values, multiples of d: states (n, d) → qkv (n, 3 d). `positions` is
// indexed like the data of `states`.
void Pass::project(int layer, Rows states, const int64_t* positions, int from, int to, float* qkv) {
    const Layer& weights = model_.layers[layer - 1];
    const int d = model_.spec.hidden, heads = model_.spec.heads, width = model_.spec.width();
    const bool norm = model_.spec.norm_first && weights.attention_norm;
    const size_t operand = round_up(kernels_.operand_size(weights.qkv, BLOCK), LINE);
    const size_t normed = norm ? sizeof(float) * BLOCK * d : 0;
    in_blocks(states.n, FEW_ROWS, BLOCK, operand + normed + sizeof(int32_t) * BLOCK,
              [&](int begin, int end, std::byte* scratch) {
                  Rows rows = part(states, begin, end);
                  float* y = qkv + static_cast<ptrdiff_t>(3) * d * begin;
                  auto* index = reinterpret_cast<int32_t*>(scratch + operand + normed);
                  for (int i = 0; i < rows.n; ++i)
                      index[i] = static_cast<int32_t>(positions[rows.index ? rows.index[i] : begin + i]);
                  if (norm) {
                      auto* normed_rows = reinterpret_cast<float*>(scratch + operand);
                      normalise(rows, d, weights.attention_norm->view(), normed_rows);
                      rows = {normed_rows, d, nullptr, rows.n};
                  }
                  linear(weights.qkv, rows, y, 3 * d, Finish::none, scratch, from, to);
                  if (weights.rotation)
                      kernels_.rotate(y + from, 3 * d, {weights.rotation, width, index, rows.n},
                                      (std::min(to, 2 * d) - from) / d * heads, width);
              });
}

// The tokens that each token sees, as indices within its sequence; null: all. A window is a distance between positions
// in the text, so pruned tokens count.
const Span* Pass::seen(int layer, const int64_t* positions, const Edges& edges) {
    const int64_t window = model_.spec.window(layer);
    if (!window) return nullptr;
    work_.seen.reserve(sizeof(Span) * edges.back());
    auto* seen = work_.seen.as<Span>();
    for (int i = 0; i < count(edges); ++i) {
        const int first = edges[i], n = edges[i + 1] - first;
        Span span{0, 0};
        for (int j = 0; j < n; ++j) {
            const int64_t position = positions[first + j];
            while (span.from < j && positions[first + span.from] < position - window) ++span.from;
            while (span.to < n && (span.to <= j || positions[first + span.to] <= position + window)) ++span.to;
            seen[first + j] = span;
        }
    }
    return seen;
}

void Pass::context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                   float* scores, bool from_others) {
    const int n = edges.back(), d = model_.spec.hidden;
    work_.qkv.reserve(sizeof(float) * 3 * d * n);
    auto* qkv = work_.qkv.as<float>();
    project(layer, {states, d, nullptr, n}, positions, 0, 3 * d, qkv);
    attend(qkv, seen(layer, positions, edges), edges, context, scores, from_others);
}

void Pass::first_context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                         float* scores, bool from_others) {
    const int n = edges.back(), d = model_.spec.hidden, n_seqs = count(edges);
    work_.qkv.reserve(sizeof(float) * 3 * d * n);
    auto* qkv = work_.qkv.as<float>();
    const Span* visible = seen(layer, positions, edges);
    // Without scores the queries of other tokens are not needed; they are skipped where the columns are whole panels.
    const int from = scores || d % model_.layers[layer - 1].qkv.panel ? 0 : d;
    project(layer, {states, d, nullptr, n}, positions, from, 3 * d, qkv);
    work_.narrow.reserve(sizeof(float) * 3 * d * n_seqs);
    auto* query = work_.narrow.as<float>();
    if (from)
        project(layer, {states, d, edges.data(), n_seqs}, positions, 0, d, query);
    else
        for (int i = 0; i < n_seqs; ++i)
            std::copy_n(qkv + static_cast<ptrdiff_t>(3) * d * edges[i], d, query + static_cast<ptrdiff_t>(3) * d * i);
    attend_first(query, qkv, visible, edges, context);
    if (scores) attend(qkv, visible, edges, nullptr, scores, from_others);
}

// Attention of all tokens; context or scores may be null.
void Pass::attend(const float* qkv, const Span* seen, const Edges& edges, float* context, float* scores,
                  bool from_others) {
    const Spec& spec = model_.spec;
    const int n = edges.back(), d = spec.hidden, pairs = count(edges) * spec.heads, max_length = longest(edges);
    float* received = nullptr;
    if (scores) {
        work_.received.reserve(sizeof(float) * spec.heads * n);
        received = work_.received.as<float>();
    }
    const size_t scratch = kernels_.attend_scratch(max_length, spec.width());
    in_blocks(pairs, 0, max_length < LONG_SEQUENCE ? PAIRS_PER_BLOCK : 1, scratch,
              [&](int begin, int end, std::byte* memory) {
                  for (int pair = begin; pair < end; ++pair) {
                      const int first = edges[pair / spec.heads], head = pair % spec.heads;
                      const Attention sequence{qkv + static_cast<ptrdiff_t>(3) * d * first,
                                               3 * d,
                                               edges[pair / spec.heads + 1] - first,
                                               spec.heads,
                                               spec.width(),
                                               seen ? seen + first : nullptr};
                      float* to = context ? context + static_cast<ptrdiff_t>(d) * first : nullptr;
                      float* column = received ? received + static_cast<ptrdiff_t>(n) * head + first : nullptr;
                      kernels_.attend(sequence, head, to, d, column, from_others, memory);
                  }
              });
    if (scores) score(received, seen, edges, scores);
}

// Attention of only the first tokens, whose queries (n_seqs, d) are 3 d floats apart.
void Pass::attend_first(const float* query, const float* qkv, const Span* seen, const Edges& edges, float* context) {
    const Spec& spec = model_.spec;
    const ptrdiff_t d = spec.hidden;
    in_blocks(count(edges), 0, PAIRS_PER_BLOCK, kernels_.attend_scratch(longest(edges), spec.width()),
              [&](int begin, int end, std::byte* memory) {
                  for (int i = begin; i < end; ++i)
                      kernels_.attend_first(query + 3 * d * i, qkv + 3 * d * edges[i] + d, 3 * d,
                                            seen ? seen[edges[i]].to : edges[i + 1] - edges[i], spec.heads,
                                            spec.width(), context + d * i, memory);
              });
}

// Means over heads (heads, n) → (n). With windows, tokens at the edges are seen by fewer queries, whose attention is
// spread over fewer tokens. So a probability is multiplied by the number of tokens that its query sees (1 = even), and
// the score of a token is the mean over the queries that see it, scaled to mean 1. Without windows this is the column
// sum.
void Pass::score(const float* received, const Span* seen, const Edges& edges, float* scores) {
    const int n = edges.back(), heads = model_.spec.heads;
    std::copy_n(received, n, scores);
    for (int head = 1; head < heads; ++head) {
        received += n;
        for (int token = 0; token < n; ++token) scores[token] += received[token];
    }
    for (int token = 0; token < n; ++token) {
        scores[token] /= static_cast<float>(heads);
        if (seen) scores[token] /= static_cast<float>(seen[token].size());
    }
    for (int i = 0; seen && i < count(edges); ++i) {
        double sum = 0;
        for (int token = edges[i]; token < edges[i + 1]; ++token) sum += scores[token];
        if (sum == 0) continue;  // a token that sees only itself, which is not counted
        const auto scale = static_cast<float>((edges[i + 1] - edges[i]) / sum);
        for (int token = edges[i]; token < edges[i + 1]; ++token) scores[token] *= scale;
    }
}

}  // namespace ziggurat
