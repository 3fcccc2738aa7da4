#include "engine/model.h"

#include <cmath>
#include <cstring>
#include <stdexcept>

namespace ziggurat {

namespace {

// Far beyond any model, and four times this size still fits 32 bits.
constexpr int MAX_SIZE = 1 << 24, MAX_ROWS = 1 << 30;

std::string shape_text(const std::vector<int64_t>& shape) {
    std::string text;
    for (const int64_t size : shape) text += (text.empty() ? "(" : ", ") + std::to_string(size);
    return text + ")";
}

// On bits and without a branch, so that compilers vectorise it: embeddings have ten million values.
bool all_finite(const float* data, int64_t n) {
    constexpr uint32_t EXPONENT = 0x7f800000;
    uint32_t any = 0;
    for (int64_t i = 0; i < n; ++i) {
        uint32_t bits;
        std::memcpy(&bits, data + i, sizeof bits);
        any |= (bits & EXPONENT) == EXPONENT;
    }
    return any == 0;
}

// Reads tensors by name and refuses those that do not fit the spec.
class Reader {
  public:
    Reader(const Tensors& tensors, Dtype dtype, const Kernels& kernels)
        : tensors_(tensors), dtype_(dtype), kernels_(kernels) {}

    bool has(const std::string& name) const { return tensors_.count(name) > 0; }

    const float* floats(const std::string& name, const std::vector<int64_t>& shape) const {
        const auto found = tensors_.find(name);
        if (found == tensors_.end()) throw std::invalid_argument("tensor " + name + " is missing");
        if (found->second.shape != shape)
            throw std::invalid_argument("tensor " + name + " has shape " + shape_text(found->second.shape) +
                                        ", the model needs " + shape_text(shape));
        int64_t n = 1;
        for (const int64_t size : shape) n *= size;
        const float* data = found->second.data;
        if (!all_finite(data, n)) throw std::invalid_argument("tensor " + name + " has numbers that are not finite");
        return data;
    }

    std::vector<float> vector(const std::string& name, int n) const {
        const float* data = floats(name, {n});
        return {data, data + n};
    }

    // The bias may be missing.
    Packed linear(const std::string& name, int out, int in, Dtype dtype) const {
        const float* bias = has(name + ".bias") ? floats(name + ".bias", {out}) : nullptr;
        return kernels_.pack(floats(name + ".weight", {out, in}), bias, out, in, dtype);
    }

    Packed linear(const std::string& name, int out, int in) const { return linear(name, out, in, dtype_); }

    NormWeights norm(const std::string& name, int d, float epsilon) const {
        return {vector(name + ".weight", d), has(name + ".bias") ? vector(name + ".bias", d) : std::vector<float>(d),
                epsilon};
    }

    std::optional<NormWeights> norm_if_there(const std::string& name, int d, float epsilon) const {
        if (!has(name + ".weight")) return std::nullopt;
        return norm(name, d, epsilon);
    }

    // Rows of a linear map: (out, in) → out.
    int rows(const std::string& name) const {
        const auto found = tensors_.find(name + ".weight");
        if (found == tensors_.end() || found->second.shape.size() != 2 || found->second.shape[0] < 1 ||
            found->second.shape[0] > MAX_SIZE)
            throw std::invalid_argument("tensor " + name + ".weight is missing or not a matrix");
        return static_cast<int>(found->second.shape[0]);
    }

  private:
    const Tensors& tensors_;
    Dtype dtype_;
    const Kernels& kernels_;
};

// What is added to a token of each segment: the row of the segment, and the first row of the task table. A row of zeros
// if the architecture has neither.
std::vector<float> read_segments(const Reader& reader, const Spec& spec) {
    const int e = spec.embedded();
    std::vector<float> rows(e, 0.f);
    if (spec.segments) {
        const float* segments = reader.floats("encoder.embeddings.segment.weight", {spec.segments, e});
        rows.assign(segments, segments + static_cast<ptrdiff_t>(spec.segments) * e);
    }
    if (spec.task_types) {
        const float* task = reader.floats("encoder.embeddings.task.weight", {spec.task_types, e});
        for (size_t i = 0; i < rows.size(); ++i) rows[i] += task[i % e];
    }
    return rows;
}

Layer read_layer(const Reader& reader, const Spec& spec, int layer) {
    const std::string prefix = "encoder.layers." + std::to_string(layer - 1) + ".";
    const int d = spec.hidden;
    Layer weights{reader.linear(prefix + "qkv", 3 * d, d),
                  reader.linear(prefix + "out", d, d),
                  reader.linear(prefix + "up", spec.gated ? 2 * spec.intermediate : spec.intermediate, d),
                  reader.linear(prefix + "down", d, spec.intermediate),
                  {},
                  reader.norm(prefix + "output_norm", d, spec.epsilon),
                  {}};
    const bool no_attention_norm =
        spec.norm_first && layer == 1;  // its input already went through the LayerNorm of the embeddings
    if (!no_attention_norm) weights.attention_norm = reader.norm(prefix + "attention_norm", d, spec.epsilon);
    const std::string guess = "pruning.guesses." + std::to_string(layer - 1);
    if (reader.has(guess + ".weight")) {
        const float* weight = reader.floats(guess + ".weight", {1, d});
        weights.guess.assign(weight, weight + d);
        weights.guess.push_back(*reader.floats(guess + ".bias", {1}));
    }
    return weights;
}

// Maps that a head applies to every token have the dtype of the layers; maps that it applies once per sequence are
// float32.
Head read_head(const Reader& reader, const Spec& spec, const std::string& name, int n_classes) {
    Head head;
    int width = spec.hidden;
    if (reader.has(name + ".narrow.weight")) {
        width = reader.rows(name + ".narrow");
        head.narrow = reader.linear(name + ".narrow", width, spec.hidden);
        head.key_value = reader.linear(name + ".key_value", 2 * width, width);
        head.query = reader.linear(name + ".query", width, width, Dtype::f32);
        head.out = reader.linear(name + ".out", width, width, Dtype::f32);
    }
    if (!head.narrow) head.activation = spec.head_activation;
    if (reader.has(name + ".dense.weight")) head.dense = reader.linear(name + ".dense", width, width, Dtype::f32);
    head.norm = reader.norm_if_there(name + ".norm", spec.hidden, spec.epsilon);
    head.dense_norm = reader.norm_if_there(name + ".dense_norm", width, spec.epsilon);
    head.mean = spec.mean_pooling && head.dense && !head.narrow;
    head.classes = reader.linear(name + ".classes", n_classes, width, Dtype::f32);
    return head;
}

// For each position the cosines, then the sines, of the angles by which rotary positions of this base rotate the
// columns of a head. In float32, as in training: at position 8,191 another precision would give another angle.
std::vector<float> rotation(float base, int positions, int width) {
    const int half = width / 2;
    std::vector<float> table(static_cast<size_t>(positions) * width), frequencies(half);
    for (int i = 0; i < half; ++i)
        frequencies[i] = 1.f / std::pow(base, static_cast<float>(2 * i) / static_cast<float>(width));
    for (int p = 0; p < positions; ++p)
        for (int i = 0; i < half; ++i) {
            const float angle = static_cast<float>(p) * frequencies[i];
            table[static_cast<size_t>(p) * width + i] = std::cos(angle);
            table[static_cast<size_t>(p) * width + half + i] = std::sin(angle);
        }
    return table;
}

void check(const Spec& spec, const std::vector<int>& head_layers) {
    for (const int size : {spec.hidden, spec.layers, spec.heads, spec.intermediate, spec.embedding_width})
        if (size > MAX_SIZE) throw std::invalid_argument("spec: no size may be above 2^24");
    for (const int rows : {spec.vocabulary, spec.positions, spec.segments, spec.position_offset, spec.task_types})
        if (rows > MAX_ROWS) throw std::invalid_argument("spec: no table may have more than 2^30 rows");
    const auto layers = static_cast<size_t>(spec.layers);
    for (const int window : spec.windows)
        if (window < 0) throw std::invalid_argument("spec: a window is negative");
    if ((!spec.rotary.empty() && spec.rotary.size() < layers) ||
        (!spec.windows.empty() && spec.windows.size() < layers))
        throw std::invalid_argument("spec: rotary bases and windows must be one for each layer");
    for (const int size : {spec.hidden, spec.layers, spec.heads, spec.intermediate, spec.vocabulary, spec.positions})
        if (size < 1) throw std::invalid_argument("spec: every size must be at least 1");
    for (const int size : {spec.segments, spec.position_offset, spec.embedding_width, spec.task_types})
        if (size < 0) throw std::invalid_argument("spec: no size may be negative");
    if (!spec.rotary.empty() && spec.width() % 2)
        throw std::invalid_argument("spec: rotary positions need heads of an even width");
    if (spec.hidden % spec.heads) throw std::invalid_argument("spec: heads do not divide the width");
    int before = 0;
    for (const int layer : head_layers) {
        if (layer <= before || layer >= spec.layers)
            throw std::invalid_argument("head layers: must rise and lie between 1 and L - 1");
        before = layer;
    }
}

}  // namespace

std::unique_ptr<Model> make_model(const Spec& spec, const Tensors& tensors, const std::vector<int>& head_layers,
                                  Dtype dtype, const Kernels& kernels) {
    check(spec, head_layers);
    const Reader reader(tensors, dtype, kernels);
    const int e = spec.embedded();
    const int n_classes = reader.rows("classifier.classes");
    auto model = std::make_unique<Model>();
    model->spec = spec;
    model->dtype = dtype;
    model->kernels = &kernels;
    model->n_classes = n_classes;
    model->word = reader.floats("encoder.embeddings.word.weight", {spec.vocabulary, e});
    if (!spec.rotary.empty()) {
        model->no_position.assign(e, 0.f);
    } else {
        const int64_t position_rows = static_cast<int64_t>(spec.positions) + spec.position_offset;
        model->position = reader.floats("encoder.embeddings.position.weight", {position_rows, e}) +
                          static_cast<ptrdiff_t>(spec.position_offset) * e;
    }
    model->segment = read_segments(reader, spec);
    model->embedding_norm = reader.norm("encoder.embeddings.norm", e, spec.epsilon);
    if (spec.embedding_width) model->project = reader.linear("encoder.embeddings.project", spec.hidden, e, Dtype::f32);
    for (int layer = 1; layer <= spec.layers; ++layer) {
        model->layers.push_back(read_layer(reader, spec, layer));
        if (spec.rotary.empty()) continue;
        std::vector<float>& table = model->rotations[spec.rotary[layer - 1]];
        if (table.empty()) table = rotation(spec.rotary[layer - 1], spec.positions, spec.width());
        model->layers.back().rotation = table.data();
    }
    model->rung_layers = head_layers;
    for (const int layer : head_layers)
        model->heads.push_back(read_head(reader, spec, "exits." + std::to_string(layer), n_classes));
    model->rung_layers.push_back(spec.layers);
    model->heads.push_back(read_head(reader, spec, "classifier", n_classes));
    return model;
}

}  // namespace ziggurat
