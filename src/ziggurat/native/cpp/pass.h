// The parts of a forward pass over packed sequences, each split among the threads of a team.
#pragma once

#include <vector>

#include "model.h"
#include "rules.h"
#include "team.h"

namespace ziggurat {

// Sequences behind one another: sequence i owns rows edges[i] … edges[i + 1] - 1.
using Edges = std::vector<int32_t>;

inline int count(const Edges& edges) { return static_cast<int>(edges.size()) - 1; }

// Memory that calls use again and again. It only grows.
struct Workspace {
    std::vector<Buffer> threads;  // scratch of each thread
    Buffer qkv, context, received, scores, narrow, states, seen, read;
    std::vector<Buffer> spare;  // states of batches that are done: memory that is new costs more to touch than to fill

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
        for (const Buffer* buffer : {&qkv, &context, &received, &scores, &narrow, &states, &seen, &read})
            sum += buffer->bytes();
        return sum;
    }
};

constexpr int BLOCK = 48;  // rows that one thread takes at a time: what it makes of them stays in its cache
// Up to so many rows are not divided; threads divide the columns of each linear map. To read the weights takes longer than
// so few rows' products, and each thread then reads its own part alone.
constexpr int FEW = 12;

// Rows begin … end - 1 of these.
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

    // Token and segment ids (n, 2) at positions (n) → states (n, d). Only ids that the model has.
    void embed(const int64_t* ids, const int64_t* positions, int n, float* states);

    // What attention mixes for each token: states (n, d) of tokens that stood at positions (n) → context (n, d), at layer
    // 1 … L. Unless `scores` is null: how much attention each token received, (n), mean 1 over a sequence.
    void context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                 float* scores, bool from_others);

    // The same for the first token of each sequence alone: → context (n_seqs, d). Scores are again of all tokens.
    void first_context(int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
                       float* scores, bool from_others);

    // The rest of the layer, token by token: states that entered it and their context (n, d) → out (n, d), not in place.
    void finish(int layer, Rows states, Rows context, float* out);

    // Scores (n) that the layer's guess gives to the states which enter it; mean 1 over a sequence.
    void guess(int layer, const float* states, const Edges& edges, float* scores);

    // What rung 0 … says to each sequence: states (n, d) → logits (n_seqs, n_classes).
    void logits(int rung, const float* states, const Edges& edges, float* logits);

  private:
    using Block = std::function<void(int begin, int end, std::byte* scratch)>;

    // Calls `block` for ranges of n rows on all threads, each with so many bytes of scratch; up to `few` rows are one range.
    void in_blocks(int n, int few, int most, size_t scratch, const Block& block);
    // Within a block: y = finish(W rows + b), columns from … to, whole panels. A block that is the only one has all threads.
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
    const float* read(const Head& head, const float* states, const Edges& edges);
    void read_tokens(const Head& head, const float* states, int n, float* narrow, float* key_value);
    void read_first(const Head& head, const float* states, const Edges& edges, float* logits);

    const Model& model_;
    const Kernels& kernels_;
    Team& team_;
    Workspace& work_;
    bool alone_ = false;  // whether all rows are in one block, so that the other threads have nothing to do
};

}  // namespace ziggurat
