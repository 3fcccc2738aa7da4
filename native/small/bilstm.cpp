#include "small/bilstm.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "small/checked.h"

namespace ziggurat {

namespace {

constexpr int TEXTS_PER_BLOCK = 48;  // texts that are read together: their gates stay in the second-level cache

}  // namespace

// Buffers for the texts that are read together, ordered from the longest to the shortest.
struct Bilstm::Work {
    std::vector<int64_t> starts, lengths,
        offsets;  // among the tokens of the call; per text; among the tokens of these texts
    int64_t n_tokens = 0;
    std::vector<float> in, first_outputs, second_outputs,
        inputs;                               // inputs of layer 1; outputs of both layers; gates from the inputs
    std::vector<float> gates, cells, states;  // of one step
    std::vector<float> last, hidden, logits_of_block;  // of the network at the end
    Buffer operand;

    int n() const { return static_cast<int>(lengths.size()); }
    int64_t token(int i, int64_t step, bool backwards) const {
        return offsets[i] + (backwards ? lengths[i] - 1 - step : step);
    }
};

Bilstm::Bilstm(const BilstmTable& table, const Kernels& kernels) : table_(table), kernels_(&kernels) {
    const int state = table.state;
    for (int backwards = 0; backwards < 2; ++backwards) {
        first_[backwards] = direction(
            table.first + static_cast<size_t>(backwards) * 4 * state * (table.width + state + 1), table.width);
        second_[backwards] =
            direction(table.second + static_cast<size_t>(backwards) * 4 * state * (3 * state + 1), 2 * state);
    }
    hidden_ = dense(table.hidden, table.hidden_width, 2 * state);
    output_ = dense(table.output, table.n_classes, table.hidden_width);
}

// The rows of the weights are the input, forget, cell and output gate. sigmoid(x) = 1/2 + tanh(x / 2) / 2, so one tanh
// serves all gates if the rows of those with a sigmoid are halved, which is exact.
Bilstm::Direction Bilstm::direction(const float* weights, int inputs) const {
    const int state = table_.state, gates = 4 * state, stride = inputs + state + 1;
    std::vector<float> input(static_cast<size_t>(gates) * inputs), states(static_cast<size_t>(gates) * state),
        bias(gates);
    for (int g = 0; g < gates; ++g) {
        const float factor = g / state == 2 ? 1.f : 0.5f;
        const float* row = weights + static_cast<size_t>(g) * stride;
        for (int k = 0; k < inputs; ++k) input[static_cast<size_t>(g) * inputs + k] = factor * row[k];
        for (int k = 0; k < state; ++k) states[static_cast<size_t>(g) * state + k] = factor * row[inputs + k];
        bias[g] = factor * row[stride - 1];
    }
    return {kernels_->pack(input.data(), bias.data(), gates, inputs, Dtype::f32),
            kernels_->pack(states.data(), nullptr, gates, state, Dtype::f32)};
}

Packed Bilstm::dense(const float* weights, int out, int in) const {
    std::vector<float> weight(static_cast<size_t>(out) * in), bias(out);
    for (int i = 0; i < out; ++i) {
        const float* row = weights + static_cast<size_t>(i) * (in + 1);
        std::copy(row, row + in, weight.begin() + static_cast<ptrdiff_t>(i) * in);
        bias[i] = row[in];
    }
    return kernels_->pack(weight.data(), bias.data(), out, in, Dtype::f32);
}

void Bilstm::apply(const Packed& weights, Rows rows, Finish finish, float* y, Work& work) const {
    work.operand.reserve(kernels_->operand_size(weights, rows.n));
    kernels_->prepare(weights, rows, work.operand.as<void>());
    kernels_->multiply(weights, work.operand.as<void>(), rows.n, 0, weights.out, finish, y, weights.out);
}

// Fills the inputs of layer 1: per token the row of the embedding plus the row of the segment.
void Bilstm::read(Work& work, const int64_t* tokens) const {
    const int width = table_.width;
    float* row = work.in.data();
    for (int i = 0; i < work.n(); ++i) {
        const int64_t* token = tokens + 2 * work.starts[i];
        for (int64_t t = 0; t < work.lengths[i]; ++t, token += 2, row += width) {
            const int64_t id = checked(token, table_.n_vocabulary, "token id"),
                          kind = checked(token + 1, 2, "segment id");
            const float* word = table_.embedding + static_cast<size_t>(table_.vocabulary[id]) * width;
            const float* segment = table_.segments + kind * width;
            for (int k = 0; k < width; ++k) row[k] = word[k] + segment[k];
        }
    }
}

// One LSTM step: from gates (n, 4 state) before their tanh, updates cells (n, state) and puts the outputs in place of
// the input gates.
void Bilstm::step(float* gates, float* cells, int n) const {
    const int state = table_.state;
    kernels_->finish(Finish::tanh, gates, 4 * state, n, 4 * state);
    for (int i = 0; i < n; ++i) {
        float *in = gates + static_cast<size_t>(i) * 4 * state, *cell = cells + static_cast<size_t>(i) * state;
        const float *forget = in + state, *candidate = forget + state;
        for (int k = 0; k < state; ++k)
            cell[k] = (0.5f + 0.5f * forget[k]) * cell[k] + (0.5f + 0.5f * in[k]) * candidate[k];
        std::copy(cell, cell + state, in);
    }
    kernels_->finish(Finish::tanh, gates, 4 * state, n, state);
    for (int i = 0; i < n; ++i) {
        float* outputs = gates + static_cast<size_t>(i) * 4 * state;
        const float* out = outputs + 3 * state;
        for (int k = 0; k < state; ++k) outputs[k] *= 0.5f + 0.5f * out[k];
    }
}

// One direction of a layer: inputs `in` (n_tokens, width) → its half of `outputs` (n_tokens, 2 state). `work.states`
// (n, state) ends with the last output of each text.
void Bilstm::run(const Direction& direction, bool backwards, const float* in, int width, float* outputs,
                 Work& work) const {
    const int state = table_.state, gates = 4 * state;
    apply(direction.inputs, {in, width, nullptr, static_cast<int>(work.n_tokens)}, Finish::none, work.inputs.data(),
          work);
    std::fill(work.cells.begin(), work.cells.end(), 0.f);
    std::fill(work.states.begin(), work.states.end(), 0.f);
    int n_running = work.n();
    for (int64_t t = 0; t < work.lengths[0]; ++t) {
        while (work.lengths[n_running - 1] <= t) --n_running;
        apply(direction.states, {work.states.data(), state, nullptr, n_running}, Finish::none, work.gates.data(), work);
        for (int i = 0; i < n_running; ++i) {
            const float* input = work.inputs.data() + work.token(i, t, backwards) * gates;
            float* text_gates = work.gates.data() + static_cast<size_t>(i) * gates;
            for (int k = 0; k < gates; ++k) text_gates[k] += input[k];
        }
        step(work.gates.data(), work.cells.data(), n_running);
        for (int i = 0; i < n_running; ++i) {
            const float* now = work.gates.data() + static_cast<size_t>(i) * gates;
            std::copy(now, now + state, work.states.data() + static_cast<size_t>(i) * state);
            std::copy(now, now + state, outputs + work.token(i, t, backwards) * 2 * state + (backwards ? state : 0));
        }
    }
}

void Bilstm::logits(const int64_t* tokens, const int64_t* edges, int64_t n_texts, float* logits) const {
    std::vector<int64_t> order(n_texts);
    std::iota(order.begin(), order.end(), 0);
    const auto length = [&](int64_t text) { return edges[text + 1] - edges[text]; };
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return length(a) > length(b); });
    const size_t state = table_.state;
    Work work;
    for (int64_t start = 0; start < n_texts; start += TEXTS_PER_BLOCK) {
        const int64_t n = std::min<int64_t>(TEXTS_PER_BLOCK, n_texts - start);
        work.starts.clear(), work.lengths.clear(), work.offsets.clear();
        work.n_tokens = 0;
        for (int64_t i = start; i < start + n; ++i) {
            work.starts.push_back(edges[order[i]]);
            work.lengths.push_back(length(order[i]));
            work.offsets.push_back(work.n_tokens);
            work.n_tokens += work.lengths.back();
        }
        work.in.resize(work.n_tokens * table_.width);
        for (auto* outputs : {&work.first_outputs, &work.second_outputs}) outputs->resize(work.n_tokens * 2 * state);
        work.inputs.resize(work.n_tokens * 4 * state);
        work.gates.resize(n * 4 * state);
        for (auto* states : {&work.cells, &work.states}) states->resize(n * state);
        work.last.assign(n * 2 * state, 0.f);
        work.hidden.resize(n * table_.hidden_width);
        work.logits_of_block.resize(n * table_.n_classes);
        if (work.lengths[0]) {
            read(work, tokens);
            for (int backwards = 0; backwards < 2; ++backwards)
                run(first_[backwards], backwards, work.in.data(), table_.width, work.first_outputs.data(), work);
            for (int backwards = 0; backwards < 2; ++backwards) {
                run(second_[backwards], backwards, work.first_outputs.data(), 2 * table_.state,
                    work.second_outputs.data(), work);
                for (int64_t i = 0; i < n; ++i)
                    std::copy_n(work.states.data() + i * state, state, work.last.data() + (2 * i + backwards) * state);
            }
        }
        const int rows = static_cast<int>(n);
        apply(hidden_, {work.last.data(), 2 * table_.state, nullptr, rows}, Finish::none, work.hidden.data(), work);
        for (float& x : work.hidden) x = std::max(x, 0.f);
        apply(output_, {work.hidden.data(), table_.hidden_width, nullptr, rows}, Finish::none,
              work.logits_of_block.data(), work);
        for (int64_t i = 0; i < n; ++i)
            std::copy_n(work.logits_of_block.data() + i * table_.n_classes, table_.n_classes,
                        logits + order[start + i] * table_.n_classes);
    }
}

}  // namespace ziggurat
