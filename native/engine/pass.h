// The steps of a forward pass over packed sequences, each split among the threads of a team.
#pragma once

#include <vector>

#include "engine/model.h"
#include "engine/rules.h"
#include "engine/team.h"

namespace ziggurat {

// Boundaries of packed sequences: sequence i has rows edges[i] … edges[i + 1] - 1.
using Edges = std::vector<int32_t>;

inline int count(const Edges& edges) { return static_cast<int>(edges.size()) - 1; }

// Memory that all calls reuse. It only grows.
struct Workspace {
    std::vector<Buffer> threads;  // scratch per thread
    Buffer qkv, context, received, scores, narrow, states, seen, head_input;
    std::vector<Buffer>
        spare;  // states of finished batches: reused, because the first touch of new memory is expensive

    // A spare buffer, or an empty one.
    Buffer take() {
        if (spare.empty()) return {};
        Buffer buffer = std::move(spare.back());
        spare.pop_back();
        return buffer;
    }

    void give_back(Buffer&& buffer) {
        if (buffer.bytes()) spare.push_back(std::move(buffer));
    }

    size_t bytes() const {
        size_t sum = 0;
        for (const auto* buffers : {&threads, &spare})
            for (const Buffer& buffer : *buffers) sum += buffer.bytes();
        for (const Buffer* buffer : {&qkv, &context, &received, &scores, &narrow, &states, &seen, &head_input})
            sum += buffer->bytes();
        return sum;
    }
};

constexpr int BLOCK = 48;  // rows that one thread takes at a time: its results for them stay in its cache
// Up to this number of rows are not divided; instead threads divide the columns of each linear map. For so few rows
// reading the weights takes longer than the products, and this way each thread reads only a part of them.
constexpr int FEW_ROWS = 12;

// Rows begin … end - 1 of `rows`.
inline Rows part(Rows rows, int begin, int end) {
    if (rows.index) return {rows.data, rows.stride, rows.index + begin, end - begin};
    return {rows.data + rows.stride * begin, rows.stride, nullptr, end - begin};
}

class Pass {
  public:
    Pass(const Model& model, Team& team, Workspace& work)
        : model_(model), kernels_(*model.kernels), team_(team), work_(work) {}

    const Model& model() const { return model_; }
    Workspace& workspace() { return work_; }

    // Token and segment ids (n, 2) at positions (n) → states (n, d). All ids must be in the model's tables.
    void embed(const int64_t* ids, const int64_t* positions, int n, float* states);

    // Attention at layer 1 … L: states (n, d) of tokens at positions (n) of their texts → context (n, d). Unless
    // `scores` is null: how much attention each token received, (n), with mean 1 over a sequence.
    void context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                 float* scores, bool from_others);

    // The same for only the first token of each sequence → context (n_seqs, d). Scores are still those of all tokens.
    void first_context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                       float* scores, bool from_others);

    // The rest of the layer: states that entered it and their context (n, d) → out (n, d), not in place.
    void finish(int layer, Rows states, Rows context, float* out);

    // Token scores (n) that the layer predicts from the states which enter it, with mean 1 over a sequence.
    void guess(int layer, const float* states, const Edges& edges, float* scores);

    // The head of rung 0 … : states (n, d) → logits (n_seqs, n_classes).
    void logits(int rung, const float* states, const Edges& edges, float* logits);

  private:
    using Block = std::function<void(int begin, int end, std::byte* scratch)>;

    // Calls `block` for ranges of up to `most` of the n rows on all threads, each with `scratch` bytes; up to `few`
    // rows are one range.
    void in_blocks(int n, int undivided, int max_rows, size_t scratch, const Block& block);
    // Within a block: y = finish(W rows + b), columns from … to, whole panels. If there is only one block, all threads
    // work on it.
    void linear(const Packed& weights, Rows rows, float* y, ptrdiff_t stride, Finish finish, void* operand, int from,
                int to);
    void linear(const Packed& weights, Rows rows, float* y, ptrdiff_t stride, Finish finish, void* operand);
    void normalise(Rows rows, int d, const Norm& norm, float* y);
    void project(int layer, Rows states, const int64_t* positions, int from, int to, float* qkv);
    const Span* seen(int layer, const int64_t* positions, const Edges& edges);
    void attend(const float* qkv, const Span* seen, const Edges& edges, float* context, float* scores,
                bool from_others);
    void attend_first(const float* query, const float* qkv, const Span* seen, const Edges& edges, float* context);
    void score(const float* received, const Span* seen, const Edges& edges, float* scores);
    void feed_forward(const Layer& weights, Rows rows, float* inner, float* y, void* operand);
    const float* head_input(const Head& head, const float* states, const Edges& edges);
    void head_tokens(const Head& head, const float* states, int n, float* narrow, float* key_value);
    void head_sequences(const Head& head, const float* states, const Edges& edges, float* logits);

    const Model& model_;
    const Kernels& kernels_;
    Team& team_;
    Workspace& work_;
    bool single_block_ = false;  // all rows are in one block, so the other threads are free
};

}  // namespace ziggurat
