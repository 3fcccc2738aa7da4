// An encoder with its ladder of heads, laid out once for one instruction set.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels.h"

namespace ziggurat {

struct Tensor {
    const float* data;
    std::vector<int64_t> shape;
};

using Tensors = std::map<std::string, Tensor>;

struct Spec {
    int hidden, layers, heads, intermediate, vocabulary, positions, segments;
    int position_offset;        // row of the position table that a text's first token reads
    int embedding_width;        // of the embeddings, if a linear map takes them to `hidden`, else 0
    int task_types;             // rows of a table of which every token reads the first; 0 = there is none
    Finish activation;          // of the feed-forward layer
    Finish head_activation;     // of the dense layer of heads that are built as the architecture's own classifier
    float epsilon;              // of every LayerNorm
    bool norm_first, gated;     // as in ziggurat.encoder.architectures
    std::vector<float> rotary;  // base of each layer's rotary positions; empty = positions are embedded
    std::vector<int> windows;   // how many places away tokens of each layer see; 0 or empty = all
    bool mean_pooling;          // heads built as the classifier read the mean of all tokens, not the first

    int width() const { return hidden / heads; }
    int embedded() const { return embedding_width ? embedding_width : hidden; }
    bool reads_segments() const { return segments > 1; }
    int window(int layer) const { return windows.empty() ? 0 : windows[layer - 1]; }
};

// A learned LayerNorm, with its own copy of the numbers.
struct NormWeights {
    std::vector<float> gain, shift;
    float epsilon = 0;

    Norm view() const { return {gain.data(), shift.data(), epsilon}; }
};

struct Layer {
    Packed qkv, out, up,
        down;  // gated: `up` has the outputs that are activated, then those that they are multiplied with
    std::optional<NormWeights> attention_norm;  // the first layer of a model with norms first has none
    NormWeights output_norm;
    std::vector<float> guess;         // (d + 1): weights and bias of the predicted token score; empty = it has none
    const float* rotation = nullptr;  // (positions, head width): cosines, then sines; null = positions are embedded
};

// What gives an answer after a layer. Presets of ziggurat.encoder.heads; which one it is shows in what is there.
struct Head {
    std::optional<Packed> narrow, query, key_value, out;  // FastBERT alone
    std::optional<Packed> dense;                          // all but the linear head
    Finish activation = Finish::tanh;                     // of the dense layer
    std::optional<NormWeights> norm;                      // of the states that it reads, where no layer ends with one
    std::optional<NormWeights> dense_norm;                // behind `dense`
    bool mean = false;                                    // reads the mean of all tokens, not the first
    Packed classes;
};

struct Model {
    Spec spec;
    Dtype dtype;
    const Kernels* kernels;
    int n_classes;
    // These belong to the caller, who keeps them alive: arrays that Python holds. No position where it is rotary.
    const float *word, *position = nullptr;
    std::vector<float> no_position;  // zeros
    std::vector<float> segment;      // (kinds that are read, at least one), with what is added to every token
    NormWeights embedding_norm;
    std::optional<Packed> project;                  // from the embeddings' width to the layers'
    std::map<float, std::vector<float>> rotations;  // of each base, the tables that layers point to
    std::vector<Layer> layers;
    std::vector<int> rung_layers;  // 1 … L, rising; the last is L
    std::vector<Head> heads;       // one for each rung
};

// `tensors` have the names of our state dict, (out, in) float32. Throws std::invalid_argument, which names the tensor, for
// one that is missing, has another shape or numbers that are not finite. Only embeddings are still read after the call.
std::unique_ptr<Model> make_model(const Spec& spec, const Tensors& tensors, const std::vector<int>& head_layers,
                                  Dtype dtype, const Kernels& kernels);

}  // namespace ziggurat
