#include "pass.h"

#include <algorithm>
#include <cmath>

namespace ziggurat {

namespace {

constexpr int BLOCK = 48;  // rows that one thread takes at a time: what it makes of them stays in its cache
constexpr int STEP = 6;    // rows that a kernel computes together
constexpr int PAIRS = 64;  // (sequence, head) pairs that one thread takes at most at a time
constexpr int FASTBERT_HEADS = 2;

int rows_of_a_block(int n, int most, int threads) {
    const int share = (n + threads - 1) / threads;
    return std::clamp(static_cast<int>(round_up(share, STEP)), 1, most);
}

}  // namespace

void Pass::in_blocks(int n, int most, size_t scratch, const Block& block) {
    work_.threads.resize(team_.size());
    for (Buffer& buffer : work_.threads) buffer.reserve(scratch);
    const int size = rows_of_a_block(n, most, team_.size());
    team_.run((n + size - 1) / size, [&](int task, int thread) {
        block(task * size, std::min(n, (task + 1) * size), work_.threads[thread].as<std::byte>());
    });
}

void Pass::linear(const Packed& weights, Rows rows, float* y, ptrdiff_t stride, Finish finish, void* operand) {
    kernels_.prepare(weights, rows, operand);
    kernels_.multiply(weights, operand, rows.n, 0, weights.out, finish, y, stride);
}

namespace {

Rows part(Rows rows, int begin, int end) {
    if (rows.index) return {rows.data, rows.stride, rows.index + begin, end - begin};
    return {rows.data + rows.stride * begin, rows.stride, nullptr, end - begin};
}

}  // namespace

void Pass::project(const Packed& weights, Rows rows, int from, int to, float* y, ptrdiff_t stride) {
    in_blocks(rows.n, BLOCK, kernels_.operand_size(weights, BLOCK), [&](int begin, int end, std::byte* operand) {
        kernels_.prepare(weights, part(rows, begin, end), operand);
        kernels_.multiply(weights, operand, end - begin, from, to, Finish::none, y + stride * begin, stride);
    });
}

void Pass::embed(const int64_t* ids, const int64_t* positions, int n, float* states) {
    const int d = model_.spec.hidden, e = model_.spec.embedded();
    const bool reads_segments = model_.spec.reads_segments();
    const auto* project = model_.project ? &*model_.project : nullptr;
    const size_t operand = project ? round_up(kernels_.operand_size(*project, BLOCK), LINE) : 0;
    const size_t narrow = project ? round_up(sizeof(float) * BLOCK * e, LINE) : 0;
    in_blocks(n, BLOCK, operand + narrow + 3 * BLOCK * sizeof(int32_t), [&](int begin, int end, std::byte* scratch) {
        auto* index = reinterpret_cast<int32_t*>(scratch + operand + narrow);
        float* out = states + static_cast<ptrdiff_t>(begin) * d;
        float* embedded = project ? reinterpret_cast<float*>(scratch + operand) : out;
        const int rows = end - begin;
        for (int i = 0; i < rows; ++i) {
            index[i] = static_cast<int32_t>(ids[2 * (begin + i)]);
            index[BLOCK + i] = static_cast<int32_t>(positions[begin + i]);
            index[2 * BLOCK + i] = reads_segments ? static_cast<int32_t>(ids[2 * (begin + i) + 1]) : 0;
        }
        kernels_.embed({model_.word, e, index, rows}, {model_.position, e, index + BLOCK, rows},
                       {model_.segment.data(), e, index + 2 * BLOCK, rows}, e, model_.embedding_norm.view(), embedded,
                       e);
        if (project) linear(*project, {embedded, e, nullptr, rows}, out, d, Finish::none, scratch);
    });
}

void Pass::context(int layer, const float* states, const Edges& edges, float* context, float* scores,
                   bool from_others) {
    const Spec& spec = model_.spec;
    const Layer& weights = model_.layers[layer - 1];
    const int n = edges.back(), d = spec.hidden, pairs = count(edges) * spec.heads;
    work_.qkv.reserve(sizeof(float) * 3 * d * n);
    auto* qkv = work_.qkv.as<float>();
    project(weights.qkv, {states, d, nullptr, n}, 0, 3 * d, qkv, 3 * d);
    int longest = 0;
    for (int i = 0; i < count(edges); ++i) longest = std::max(longest, edges[i + 1] - edges[i]);
    float* received = nullptr;
    if (scores) {
        work_.received.reserve(sizeof(float) * spec.heads * n);
        received = work_.received.as<float>();
    }
    const size_t scratch = kernels_.attend_scratch(longest, spec.width());
    in_blocks(pairs, PAIRS, scratch, [&](int begin, int end, std::byte* mine) {
        for (int pair = begin; pair < end; ++pair) {
            const int first = edges[pair / spec.heads], head = pair % spec.heads;
            const Attention sequence{qkv + static_cast<ptrdiff_t>(3) * d * first, 3 * d,
                                     edges[pair / spec.heads + 1] - first, spec.heads, spec.width()};
            float* column = received ? received + static_cast<ptrdiff_t>(n) * head + first : nullptr;
            kernels_.attend(sequence, head, context + static_cast<ptrdiff_t>(d) * first, d, column, from_others, mine);
        }
    });
    for (int token = 0; scores && token < n; ++token) {
        float sum = 0;
        for (int head = 0; head < spec.heads; ++head) sum += received[static_cast<ptrdiff_t>(n) * head + token];
        scores[token] = sum / static_cast<float>(spec.heads);
    }
}

void Pass::first_context(int layer, const float* states, const Edges& edges, float* context) {
    const Spec& spec = model_.spec;
    const Layer& weights = model_.layers[layer - 1];
    const int n = edges.back(), d = spec.hidden, n_seqs = count(edges);
    work_.qkv.reserve(sizeof(float) * 3 * d * n);
    auto* qkv = work_.qkv.as<float>();
    // Nobody reads the other tokens' queries; they can be left out where the columns fall into whole panels.
    const int from = d % weights.qkv.panel ? 0 : d;
    project(weights.qkv, {states, d, nullptr, n}, from, 3 * d, qkv, 3 * d);
    work_.narrow.reserve(sizeof(float) * 3 * d * n_seqs);
    auto* query = work_.narrow.as<float>();
    project(weights.qkv, {states, d, edges.data(), n_seqs}, 0, from ? d : 3 * d, query, 3 * d);
    int longest = 0;
    for (int i = 0; i < n_seqs; ++i) longest = std::max(longest, edges[i + 1] - edges[i]);
    in_blocks(n_seqs, PAIRS, kernels_.attend_scratch(longest, spec.width()), [&](int begin, int end, std::byte* mine) {
        for (int i = begin; i < end; ++i)
            kernels_.attend_first(query + static_cast<ptrdiff_t>(3) * d * i,
                                  qkv + static_cast<ptrdiff_t>(3) * d * edges[i] + d, 3 * d, edges[i + 1] - edges[i],
                                  spec.heads, spec.width(), context + static_cast<ptrdiff_t>(d) * i, mine);
    });
}

void Pass::finish(int layer, Rows states, Rows context, float* out) {
    const Layer& weights = model_.layers[layer - 1];
    const int d = model_.spec.hidden, wide = model_.spec.intermediate;
    const size_t operand =
        round_up(std::max({kernels_.operand_size(weights.out, BLOCK), kernels_.operand_size(weights.up, BLOCK),
                           kernels_.operand_size(weights.down, BLOCK)}),
                 LINE);
    const size_t middle = round_up(sizeof(float) * BLOCK * d, LINE);
    in_blocks(states.n, BLOCK, operand + middle + sizeof(float) * BLOCK * wide,
              [&](int begin, int end, std::byte* scratch) {
                  auto* attended = reinterpret_cast<float*>(scratch + operand);
                  auto* inner = reinterpret_cast<float*>(scratch + operand + middle);
                  float* y = out + static_cast<ptrdiff_t>(d) * begin;
                  const int rows = end - begin;
                  linear(weights.out, part(context, begin, end), attended, d, Finish::none, scratch);
                  kernels_.add_norm(attended, d, part(states, begin, end), rows, d, weights.attention_norm.view());
                  linear(weights.up, {attended, d, nullptr, rows}, inner, wide, model_.spec.activation, scratch);
                  linear(weights.down, {inner, wide, nullptr, rows}, y, d, Finish::none, scratch);
                  kernels_.add_norm(y, d, {attended, d, nullptr, rows}, rows, d, weights.output_norm.view());
              });
}

void Pass::guess(int layer, const float* states, const Edges& edges, float* scores) {
    const std::vector<float>& weights = model_.layers[layer - 1].guess;
    const int d = model_.spec.hidden;
    for (int token = 0; token < edges.back(); ++token) {
        double sum = weights[d];
        for (int i = 0; i < d; ++i)
            sum += static_cast<double>(weights[i]) * states[static_cast<ptrdiff_t>(d) * token + i];
        scores[token] = static_cast<float>(sum);
    }
    for (int i = 0; i < count(edges); ++i) {
        float *begin = scores + edges[i], *end = scores + edges[i + 1];
        const double peak = *std::max_element(begin, end);
        double sum = 0;
        for (float* score = begin; score < end; ++score) sum += std::exp(*score - peak);
        for (float* score = begin; score < end; ++score)
            *score = static_cast<float>(std::exp(*score - peak) * static_cast<double>(end - begin) / sum);
    }
}

void Pass::logits(int rung, const float* states, const Edges& edges, float* logits) {
    const Head& head = model_.heads[rung];
    if (!head.narrow) return read_first(head, states, edges, logits);
    const int n = edges.back(), width = head.narrow->out;
    work_.narrow.reserve(sizeof(float) * width * n);
    work_.qkv.reserve(sizeof(float) * 2 * width * n);
    auto *narrow = work_.narrow.as<float>(), *key_value = work_.qkv.as<float>();
    read_tokens(head, states, n, narrow, key_value);
    read_first(head, narrow, edges, logits);
}

// What a FastBERT head computes for every token: states (n, d) → narrow (n, w), keys and values (n, 2 w).
void Pass::read_tokens(const Head& head, const float* states, int n, float* narrow, float* key_value) {
    const int d = model_.spec.hidden, width = head.narrow->out;
    const size_t operand =
        std::max(kernels_.operand_size(*head.narrow, BLOCK), kernels_.operand_size(*head.key_value, BLOCK));
    in_blocks(n, BLOCK, operand, [&](int begin, int end, std::byte* scratch) {
        float* mine = narrow + static_cast<ptrdiff_t>(width) * begin;
        linear(*head.narrow, part({states, d, nullptr, n}, begin, end), mine, width, Finish::tanh, scratch);
        linear(*head.key_value, {mine, width, nullptr, end - begin},
               key_value + static_cast<ptrdiff_t>(2) * width * begin, 2 * width, Finish::none, scratch);
    });
}

// What a head computes once for a sequence, from the rows of its first token (and, in a FastBERT head, all keys and values).
void Pass::read_first(const Head& head, const float* states, const Edges& edges, float* logits) {
    const int width = head.classes.in, n_classes = model_.n_classes;
    size_t operand = kernels_.operand_size(head.classes, STEP);
    for (const auto* weights : {&head.query, &head.out, &head.dense})
        if (*weights) operand = std::max(operand, kernels_.operand_size(**weights, STEP));
    operand = round_up(operand, LINE);
    int longest = 0;
    for (int i = 0; i < count(edges); ++i) longest = std::max(longest, edges[i + 1] - edges[i]);
    const size_t values = round_up(sizeof(float) * STEP * width, LINE);
    const size_t attention = kernels_.attend_scratch(longest, std::max(width / FASTBERT_HEADS, 1));
    in_blocks(count(edges), STEP, operand + 2 * values + attention, [&](int begin, int end, std::byte* scratch) {
        auto *one = reinterpret_cast<float*>(scratch + operand),
             *other = reinterpret_cast<float*>(scratch + operand + values);
        const int rows = end - begin;
        Rows read{states, width, edges.data() + begin, rows};
        const auto then = [&](const Packed& weights, Finish finish) {
            float* y = read.data == one ? other : one;
            linear(weights, read, y, width, finish, scratch);
            read = {y, width, nullptr, rows};
        };
        if (head.query) {
            then(*head.query, Finish::none);
            const auto* key_value = work_.qkv.as<float>();
            for (int i = 0; i < rows; ++i) {
                const int first = edges[begin + i];
                kernels_.attend_first(one + static_cast<ptrdiff_t>(width) * i,
                                      key_value + static_cast<ptrdiff_t>(2) * width * first, 2 * width,
                                      edges[begin + i + 1] - first, FASTBERT_HEADS, width / FASTBERT_HEADS,
                                      other + static_cast<ptrdiff_t>(width) * i, scratch + operand + 2 * values);
            }
            read.data = other;
            then(*head.out, Finish::none);
        }
        if (head.dense) then(*head.dense, head.activation);
        linear(head.classes, read, logits + static_cast<ptrdiff_t>(n_classes) * begin, n_classes, Finish::none,
               scratch);
    });
}

}  // namespace ziggurat
