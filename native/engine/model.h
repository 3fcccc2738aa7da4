// An encoder with its exits and classifier, packed once for one instruction set.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace ziggurat {

struct Tensor {
    const float* data;
    std::vector<int64_t> shape;
};

using Tensors = std::map<std::string, Tensor>;

struct Spec {
    int hidden, layers, heads, intermediate, vocabulary, positions, segments;
    int position_offset;        // row of the position table that the first token of a text reads
    int embedding_width;        // of the embeddings, if a linear map widens them to `hidden`; else 0
    int task_types;             // rows of the task table, of which every token reads the first; 0 = no table
    Finish activation;          // of the feed-forward layer
    Finish head_activation;     // of the dense layer in heads of the architecture's own kind
    float epsilon;              // of every LayerNorm
    bool norm_first, gated;     // as in ziggurat.encoder.architectures
    std::vector<float> rotary;  // base of the rotary positions per layer; empty = positions are embedded
    std::vector<int> windows;   // distance up to which tokens see each other, per layer; 0 or empty = all
    bool mean_pooling;          // heads of the architecture's own kind read the mean of all tokens, not the first

    int width() const { return hidden / heads; }
    int embedded() const { return embedding_width ? embedding_width : hidden; }
    bool reads_segments() const { return segments > 1; }
    int window(int layer) const { return windows.empty() ? 0 : windows[layer - 1]; }
};

// A learned LayerNorm, with a copy of its weights.
struct NormWeights {
    std::vector<float> gain, shift;
    float epsilon = 0;

    Norm view() const { return {gain.data(), shift.data(), epsilon}; }
};

struct Layer {
    // Gated: the outputs of `up` are first those that are activated, then their factors.
    Packed qkv, out, up, down;
    std::optional<NormWeights> attention_norm;  // missing in the first layer of a model with norms first
    NormWeights output_norm;
    std::vector<float> guess;         // (d + 1): weights and bias of the predicted token score; may be empty
    const float* rotation = nullptr;  // (positions, head width): cosines, then sines; null = positions are embedded
};

// Computes logits after a layer. The members that are set tell which preset of ziggurat.encoder.heads it is.
struct Head {
    std::optional<Packed> narrow, query, key_value, out;  // FastBERT alone
    std::optional<Packed> dense;                          // all but the linear head
    Finish activation = Finish::tanh;                     // of the dense layer
    std::optional<NormWeights> norm;  // of the states that it reads, in models whose layers do not end with a norm
    std::optional<NormWeights> dense_norm;  // behind `dense`
    bool mean = false;                      // reads the mean of all tokens, not the first
    Packed classes;
};

struct Model {
    Spec spec;
    Dtype dtype;
    const Kernels* kernels;
    int n_classes;
    // Owned by the caller, which keeps them alive: arrays of Python. `position` is null with rotary positions.
    const float *word, *position = nullptr;
    std::vector<float> no_position;  // zeros
    std::vector<float>
        segment;  // (segments, at least 1; embedded): segment embeddings plus what is added to every token
    NormWeights embedding_norm;
    std::optional<Packed> project;                  // from the width of the embeddings to that of the layers
    std::map<float, std::vector<float>> rotations;  // per base, the tables that layers point to
    std::vector<Layer> layers;
    std::vector<int> rung_layers;  // 1 … L, rising; the last is L
    std::vector<Head> heads;       // one for each rung
};

// `tensors` are (out, in) float32 and have the names of our state dict. Throws std::invalid_argument with the name of a
// tensor that is missing, has another shape or has values that are not finite. After the call only the embeddings are
// still read.
std::unique_ptr<Model> make_model(const Spec& spec, const Tensors& tensors, const std::vector<int>& head_layers,
                                  Dtype dtype, const Kernels& kernels);

}  // namespace ziggurat
