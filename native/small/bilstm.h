// The BiLSTM tier: two bidirectional LSTM layers over the rows of an embedding, and a small network on their last
// states. The Python specification (`bilstm_tier.py`) defines what is computed; results agree up to rounding.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/kernels.h"

namespace ziggurat {

// A tier; the arrays are Python's. In all matrices the last column is the bias.
struct BilstmTable {
    const int16_t* vocabulary;  // (n_vocabulary): rows of the embedding
    int64_t n_vocabulary;
    const float* embedding;       // (rows, width)
    const float* segments;        // (2, width)
    const float *first, *second;  // (2, 4 state, width + state + 1), (2, 4 state, 3 state + 1)
    const float* hidden;          // (hidden, 2 state + 1)
    const float* output;          // (n_classes, hidden + 1)
    int width, state, hidden_width, n_classes;
};

// Keeps pointers to the vocabulary, embedding and segments, and packs the other weights. The logits of a text depend on
// that text only, to the last bit.
class Bilstm {
  public:
    Bilstm(const BilstmTable& table, const Kernels& kernels);

    // Tokens and segments (n_tokens, 2) of packed texts with edges (n_texts + 1) → logits (n_texts, n_classes). Throws
    // std::invalid_argument for a number that is no token or segment.
    void logits(const int64_t* tokens, const int64_t* edges, int64_t n_texts, float* logits) const;

    int n_classes() const { return table_.n_classes; }

  private:
    struct Direction {
        Packed inputs,
            states;  // maps to the gates (4 state): from the inputs, with the bias, and from the state before
    };
    struct Work;  // buffers of a call

    Direction direction(const float* weights, int inputs) const;
    Packed dense(const float* weights, int out, int in) const;
    void apply(const Packed& weights, Rows rows, Finish finish, float* y, Work& work) const;
    void read(Work& work, const int64_t* tokens) const;
    void run(const Direction& direction, bool backwards, const float* in, int width, float* said, Work& work) const;
    void step(float* gates, float* cells, int n) const;

    BilstmTable table_;
    const Kernels* kernels_;
    Direction first_[2], second_[2];
    Packed hidden_, output_;
};

}  // namespace ziggurat
