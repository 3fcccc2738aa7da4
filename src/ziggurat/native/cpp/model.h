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
    bool gelu_tanh;
    float epsilon;  // of every LayerNorm

    int width() const { return hidden / heads; }
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
    std::optional<Packed> dense;                          // with tanh; all but the linear head
    Packed classes;
};

struct Model {
    Spec spec;
    Dtype dtype;
    const Kernels* kernels;
    int n_classes;
    const float *word, *position, *segment;  // belong to the caller, who keeps them alive: they may be a mapped file
    NormWeights embedding_norm;
    std::vector<Layer> layers;
    std::vector<int> rung_layers;  // 1 … L, rising; the last is L
    std::vector<Head> heads;       // one for each rung
};

// `tensors` have the names of our state dict, (out, in) float32. Throws std::invalid_argument, which names the tensor, for
// one that is missing, has another shape or numbers that are not finite. Only embeddings are still read after the call.
std::unique_ptr<Model> make_model(const Spec& spec, const Tensors& tensors, const std::vector<int>& head_layers, Dtype dtype,
                                  const Kernels& kernels);

}  // namespace ziggurat
