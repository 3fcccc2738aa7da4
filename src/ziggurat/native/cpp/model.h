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
    int position_offset;     // row of the position table that a text's first token reads
    int embedding_width;     // of the embeddings, if a linear map takes them to `hidden`, else 0
    int task_types;          // rows of a table of which every token reads the first; 0 = there is none
    Finish activation;       // of the feed-forward layer
    Finish head_activation;  // of the dense layer of heads that are built as the architecture's own classifier
    float epsilon;           // of every LayerNorm

    int width() const { return hidden / heads; }
    int embedded() const { return embedding_width ? embedding_width : hidden; }
    bool reads_segments() const { return segments > 1; }
};

// A learned LayerNorm, with its own copy of the numbers.
struct NormWeights {
    std::vector<float> gain, shift;
    float epsilon = 0;

    Norm view() const { return {gain.data(), shift.data(), epsilon}; }
};

struct Layer {
    Packed qkv, out, up, down;
    NormWeights attention_norm, output_norm;
    std::vector<float> guess;  // (d + 1): weights and bias of the predicted token score; empty = it has none
};

// What gives an answer after a layer. Presets of ziggurat.encoder.heads; which one it is shows in what is there.
struct Head {
    std::optional<Packed> narrow, query, key_value, out;  // FastBERT alone
    std::optional<Packed> dense;                          // all but the linear head
    Finish activation = Finish::tanh;                     // of the dense layer
    Packed classes;
};

struct Model {
    Spec spec;
    Dtype dtype;
    const Kernels* kernels;
    int n_classes;
    const float *word, *position;  // belong to the caller, who keeps them alive: they may be a mapped file
    std::vector<float> segment;    // (kinds that are read, at least one), with what is added to every token
    NormWeights embedding_norm;
    std::optional<Packed> project;  // from the embeddings' width to the layers'
    std::vector<Layer> layers;
    std::vector<int> rung_layers;  // 1 … L, rising; the last is L
    std::vector<Head> heads;       // one for each rung
};

// `tensors` have the names of our state dict, (out, in) float32. Throws std::invalid_argument, which names the tensor, for
// one that is missing, has another shape or numbers that are not finite. Only embeddings are still read after the call.
std::unique_ptr<Model> make_model(const Spec& spec, const Tensors& tensors, const std::vector<int>& head_layers,
                                  Dtype dtype, const Kernels& kernels);

}  // namespace ziggurat
