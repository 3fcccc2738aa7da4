#include "engine/pass.h"

#include <algorithm>
#include <cmath>

namespace ziggurat {

namespace {

constexpr int KERNEL_ROWS = 6;  // rows that a kernel computes together
constexpr int FASTBERT_HEADS = 2;

// Rows per block: as even as possible for all threads, at most `most`.
int rows_of_a_block(int n, int max_rows, int threads) {
    const int blocks = static_cast<int>(round_up(std::max(1, (n + max_rows - 1) / max_rows), threads));
    return std::max(1, (n + blocks - 1) / blocks);
}

}  // namespace

void Pass::in_blocks(int n, int undivided, int max_rows, size_t scratch, const Block& block) {
    work_.threads.resize(team_.size());
    for (Buffer& buffer : work_.threads) buffer.reserve(scratch);
    const int size = n <= undivided ? std::max(1, n) : rows_of_a_block(n, max_rows, team_.size());
    single_block_ = n <= size;
    team_.run((n + size - 1) / size, [&](int task, int thread) {
        block(task * size, std::min(n, (task + 1) * size), work_.threads[thread].as<std::byte>());
    });
}

void Pass::linear(const Packed& weights, Rows rows, float* y, ptrdiff_t stride, Finish finish, void* operand, int from,
                  int to) {
    kernels_.prepare(weights, rows, operand);
    if (!single_block_) return kernels_.multiply(weights, operand, rows.n, from, to, finish, y, stride);
    const int panels = (to - from + weights.panel - 1) / weights.panel, threads = team_.size();
    const int share = (panels + threads - 1) / threads * weights.panel;
    team_.run((to - from + share - 1) / share, [&](int task, int) {
        const int begin = from + task * share;
        kernels_.multiply(weights, operand, rows.n, begin, std::min(to, begin + share), finish, y, stride);
    });
}

void Pass::linear(const Packed& weights, Rows rows, float* y, ptrdiff_t stride, Finish finish, void* operand) {
    linear(weights, rows, y, stride, finish, operand, 0, weights.out);
}

void Pass::normalise(Rows rows, int d, const Norm& norm, float* y) {
    for (int i = 0; i < rows.n; ++i) std::copy_n(rows[i], d, y + static_cast<ptrdiff_t>(d) * i);
    kernels_.add_norm(y, d, {nullptr, 0, nullptr, rows.n}, rows.n, d, norm);
}

namespace {

// y += rows, d columns.
void add(float* y, Rows rows, int d) {
    for (int i = 0; i < rows.n; ++i, y += d) {
        const float* x = rows[i];
        for (int j = 0; j < d; ++j) y[j] += x[j];
    }
}

// The row of the position table that each token reads, for tables that start after the row of the padding token. A
// padding token inside a text reads row -1, and tokens after it do not count it. Positions rise within a text.
std::vector<int64_t> positions_without_padding(const int64_t* ids, const int64_t* positions, int n, int64_t padding) {
    std::vector<int64_t> rows_of_positions(positions, positions + n);
    int64_t n_padding = 0;
    for (int i = 0; i < n; ++i) {
        if (i > 0 && positions[i] <= positions[i - 1]) n_padding = 0;
        if (ids[2 * i] == padding) {
            rows_of_positions[i] = -1;
            ++n_padding;
        } else {
            rows_of_positions[i] -= n_padding;
        }
    }
    return rows_of_positions;
}

}  // namespace

void Pass::embed(const int64_t* ids, const int64_t* positions, int n, float* states) {
    std::vector<int64_t> counted;
    if (const int offset = model_.spec.position_offset; offset > 0 && model_.position) {
        counted = positions_without_padding(ids, positions, n, offset - 1);
        positions = counted.data();
    }
    const int d = model_.spec.hidden, e = model_.spec.embedded();
    const bool reads_segments = model_.spec.reads_segments();
    const auto* project = model_.project ? &*model_.project : nullptr;
    const size_t operand = project ? round_up(kernels_.operand_size(*project, BLOCK), LINE) : 0;
    const size_t narrow = project ? round_up(sizeof(float) * BLOCK * e, LINE) : 0;
    in_blocks(n, FEW_ROWS, BLOCK, operand + narrow + 3 * BLOCK * sizeof(int32_t),
              [&](int begin, int end, std::byte* scratch) {
                  auto* index = reinterpret_cast<int32_t*>(scratch + operand + narrow);
                  float* out = states + static_cast<ptrdiff_t>(begin) * d;
                  float* embedded = project ? reinterpret_cast<float*>(scratch + operand) : out;
                  const int rows = end - begin;
                  for (int i = 0; i < rows; ++i) {
                      index[i] = static_cast<int32_t>(ids[2 * (begin + i)]);
                      index[BLOCK + i] = static_cast<int32_t>(positions[begin + i]);
                      index[2 * BLOCK + i] = reads_segments ? static_cast<int32_t>(ids[2 * (begin + i) + 1]) : 0;
                  }
                  const Rows rows_of_positions = model_.position ? Rows{model_.position, e, index + BLOCK, rows}
                                                                 : Rows{model_.no_position.data(), 0, nullptr, rows};
                  kernels_.embed({model_.word, e, index, rows}, rows_of_positions,
                                 {model_.segment.data(), e, index + 2 * BLOCK, rows}, e, model_.embedding_norm.view(),
                                 embedded, e);
                  if (project) linear(*project, {embedded, e, nullptr, rows}, out, d, Finish::none, scratch);
              });
}

void Pass::finish(int layer, Rows states, Rows context, float* out) {
    const Layer& weights = model_.layers[layer - 1];
    const int d = model_.spec.hidden;
    const size_t operand =
        round_up(std::max({kernels_.operand_size(weights.out, BLOCK), kernels_.operand_size(weights.up, BLOCK),
                           kernels_.operand_size(weights.down, BLOCK)}),
                 LINE);
    const size_t attended_bytes = round_up(sizeof(float) * BLOCK * d, LINE);
    const Norm output_norm = weights.output_norm.view();
    in_blocks(states.n, FEW_ROWS, BLOCK, operand + attended_bytes + sizeof(float) * BLOCK * weights.up.out,
              [&](int begin, int end, std::byte* scratch) {
                  auto* attended = reinterpret_cast<float*>(scratch + operand);
                  auto* inner = reinterpret_cast<float*>(scratch + operand + attended_bytes);
                  float* y = out + static_cast<ptrdiff_t>(d) * begin;
                  const Rows entered = part(states, begin, end), attended_rows{attended, d, nullptr, end - begin};
                  linear(weights.out, part(context, begin, end), attended, d, Finish::none, scratch);
                  if (model_.spec.norm_first) {
                      add(attended, entered, d);
                      normalise(attended_rows, d, output_norm, y);
                      feed_forward(weights, {y, d, nullptr, attended_rows.n}, inner, y, scratch);
                      add(y, attended_rows, d);
                  } else {
                      kernels_.add_norm(attended, d, entered, attended_rows.n, d, weights.attention_norm->view());
                      feed_forward(weights, attended_rows, inner, y, scratch);
                      kernels_.add_norm(y, d, attended_rows, attended_rows.n, d, output_norm);
                  }
              });
}

// Rows (n, d) through both maps → y (n, d), which may be the memory of the rows; `inner` has room for the outputs of
// the first.
void Pass::feed_forward(const Layer& weights, Rows rows, float* inner, float* y, void* operand) {
    const int inner_width = weights.up.out;
    const Finish activation = model_.spec.activation;
    linear(weights.up, rows, inner, inner_width, model_.spec.gated ? Finish::none : activation, operand);
    if (model_.spec.gated) kernels_.gate(activation, inner, inner_width, rows.n, inner_width / 2);
    linear(weights.down, {inner, inner_width, nullptr, rows.n}, y, model_.spec.hidden, Finish::none, operand);
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
    if (head.norm || head.mean) states = head_input(head, states, edges);
    if (!head.narrow) return head_sequences(head, states, edges, logits);
    const int n = edges.back(), width = head.narrow->out;
    work_.narrow.reserve(sizeof(float) * width * n);
    work_.qkv.reserve(sizeof(float) * 2 * width * n);
    auto *narrow = work_.narrow.as<float>(), *key_value = work_.qkv.as<float>();
    head_tokens(head, states, n, narrow, key_value);
    head_sequences(head, narrow, edges, logits);
}

// The input of a head with a norm or a mean: rows of (n, d), of which only those that the head reads are written. The
// mean of a sequence is in the row of its first token.
const float* Pass::head_input(const Head& head, const float* states, const Edges& edges) {
    const int d = model_.spec.hidden, n = edges.back(), n_seqs = count(edges);
    const bool all = head.narrow || head.mean;
    work_.head_input.reserve(sizeof(float) * d * n);
    auto* result = work_.head_input.as<float>();
    in_blocks(all ? n : n_seqs, 0, BLOCK, 0, [&](int begin, int end, std::byte*) {
        for (int i = begin; i < end; ++i) {
            const ptrdiff_t row = static_cast<ptrdiff_t>(d) * (all ? i : edges[i]);
            if (head.norm)
                normalise({states + row, d, nullptr, 1}, d, head.norm->view(), result + row);
            else
                std::copy_n(states + row, d, result + row);
        }
    });
    if (!head.mean) return result;
    in_blocks(n_seqs, 0, KERNEL_ROWS, 0, [&](int begin, int end, std::byte*) {
        for (int i = begin; i < end; ++i) {
            float* mean = result + static_cast<ptrdiff_t>(d) * edges[i];
            const int length = edges[i + 1] - edges[i];
            for (int j = 1; j < length; ++j) add(mean, {mean + static_cast<ptrdiff_t>(d) * j, d, nullptr, 1}, d);
            for (int j = 0; j < d; ++j) mean[j] /= static_cast<float>(length);
        }
    });
    return result;
}

// The part of a FastBERT head that runs on every token: states (n, d) → narrow (n, w), keys and values (n, 2 w).
void Pass::head_tokens(const Head& head, const float* states, int n, float* narrow, float* key_value) {
    const int d = model_.spec.hidden, width = head.narrow->out;
    const size_t operand =
        std::max(kernels_.operand_size(*head.narrow, BLOCK), kernels_.operand_size(*head.key_value, BLOCK));
    in_blocks(n, FEW_ROWS, BLOCK, operand, [&](int begin, int end, std::byte* scratch) {
        float* narrowed = narrow + static_cast<ptrdiff_t>(width) * begin;
        linear(*head.narrow, part({states, d, nullptr, n}, begin, end), narrowed, width, Finish::tanh, scratch);
        linear(*head.key_value, {narrowed, width, nullptr, end - begin},
               key_value + static_cast<ptrdiff_t>(2) * width * begin, 2 * width, Finish::none, scratch);
    });
}

// The part of a head that runs once per sequence, on the row of its first token (and, in a FastBERT head, all keys and
// values).
void Pass::head_sequences(const Head& head, const float* states, const Edges& edges, float* logits) {
    const int width = head.classes.in, n_classes = model_.n_classes;
    // With spans every token is a sequence, so there are many rows. Larger blocks then read the weights less often.
    const int max_rows = head.query ? KERNEL_ROWS : BLOCK, undivided = head.query ? 0 : FEW_ROWS;
    size_t operand = kernels_.operand_size(head.classes, max_rows);
    for (const auto* weights : {&head.query, &head.out, &head.dense})
        if (*weights) operand = std::max(operand, kernels_.operand_size(**weights, max_rows));
    operand = round_up(operand, LINE);
    int longest = 0;
    for (int i = 0; i < count(edges); ++i) longest = std::max(longest, edges[i + 1] - edges[i]);
    const size_t values = round_up(sizeof(float) * max_rows * width, LINE);
    const size_t attention = kernels_.attend_scratch(longest, std::max(width / FASTBERT_HEADS, 1));
    in_blocks(count(edges), undivided, max_rows, operand + 2 * values + attention,
              [&](int begin, int end, std::byte* scratch) {
                  auto *first_values = reinterpret_cast<float*>(scratch + operand),
                       *second_values = reinterpret_cast<float*>(scratch + operand + values);
                  const int rows = end - begin;
                  Rows input{states, width, edges.data() + begin, rows};
                  const auto apply = [&](const Packed& weights, Finish finish) {
                      float* y = input.data == first_values ? second_values : first_values;
                      linear(weights, input, y, width, finish, scratch);
                      input = {y, width, nullptr, rows};
                  };
                  if (head.query) {
                      apply(*head.query, Finish::none);
                      const auto* key_value = work_.qkv.as<float>();
                      for (int i = 0; i < rows; ++i) {
                          const int first = edges[begin + i];
                          kernels_.attend_first(first_values + static_cast<ptrdiff_t>(width) * i,
                                                key_value + static_cast<ptrdiff_t>(2) * width * first, 2 * width,
                                                edges[begin + i + 1] - first, FASTBERT_HEADS, width / FASTBERT_HEADS,
                                                second_values + static_cast<ptrdiff_t>(width) * i,
                                                scratch + operand + 2 * values);
                      }
                      input.data = second_values;
                      apply(*head.out, Finish::none);
                  }
                  if (head.dense) apply(*head.dense, head.activation);
                  if (head.dense_norm) {
                      float* dense = input.data == first_values ? first_values : second_values;
                      kernels_.add_norm(dense, width, {nullptr, 0, nullptr, rows}, rows, width,
                                        head.dense_norm->view());
                  }
                  linear(head.classes, input, logits + static_cast<ptrdiff_t>(n_classes) * begin, n_classes,
                         Finish::none, scratch);
              });
}

}  // namespace ziggurat
