#include "bilstm.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "numbers.h"

namespace ziggurat {

namespace {

constexpr int TOGETHER = 48;  // texts that are read at a time: their gates stay in the second cache

}  // namespace

// Of the texts that are read together, from the longest to the shortest.
struct Bilstm::Work {
    std::vector<int64_t> starts, lengths, offsets;  // in the call's tokens; of a text; among the tokens of these texts
    int64_t n_tokens = 0;
    std::vector<float> in, one, other, inputs;  // what a layer reads; what two layers say; gates from what is read
    std::vector<float> gates, cells, before;    // of a step
    std::vector<float> last, between, answers;  // of the network
    Buffer operand;

    int n() const { return static_cast<int>(lengths.size()); }
    int64_t token(int i, int64_t step, bool backwards) const {
        return offsets[i] + (backwards ? lengths[i] - 1 - step : step);
    }
};

Bilstm::Bilstm(const BilstmTable& table, const Kernels& kernels) : table_(table), kernels_(&kernels) {
    const int state = table.state;
    for (int way = 0; way < 2; ++way) {
        first_[way] =
            direction(table.first + static_cast<size_t>(way) * 4 * state * (table.width + state + 1), table.width);
        second_[way] = direction(table.second + static_cast<size_t>(way) * 4 * state * (3 * state + 1), 2 * state);
    }
    hidden_ = dense(table.hidden, table.hidden_width, 2 * state);
    output_ = dense(table.output, table.n_classes, table.hidden_width);
}

// Rows are the input, forget, cell and output gate. sigmoid(x) = 1/2 + tanh(x / 2) / 2, so one tanh serves all gates if
// those with a sigmoid are halved, which loses no bit.
Bilstm::Direction Bilstm::direction(const float* weights, int inputs) const {
    const int state = table_.state, gates = 4 * state, stride = inputs + state + 1;
    std::vector<float> input(static_cast<size_t>(gates) * inputs), before(static_cast<size_t>(gates) * state),
        bias(gates);
    for (int g = 0; g < gates; ++g) {
        const float factor = g / state == 2 ? 1.f : 0.5f;
        const float* row = weights + static_cast<size_t>(g) * stride;
        for (int k = 0; k < inputs; ++k) input[static_cast<size_t>(g) * inputs + k] = factor * row[k];
        for (int k = 0; k < state; ++k) before[static_cast<size_t>(g) * state + k] = factor * row[inputs + k];
        bias[g] = factor * row[stride - 1];
    }
    return {kernels_->pack(input.data(), bias.data(), gates, inputs, Dtype::f32),
            kernels_->pack(before.data(), nullptr, gates, state, Dtype::f32)};
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

// The texts' tokens as rows of the embedding plus those of their segments.
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

// Cells (n, state) and, in place of the input gates, what is said, from gates (n, 4 state) before their tanh.
void Bilstm::step(float* gates, float* cells, int n) const {
    const int state = table_.state;
    kernels_->finish(Finish::tanh, gates, 4 * state, n, 4 * state);
    for (int i = 0; i < n; ++i) {
        float *in = gates + static_cast<size_t>(i) * 4 * state, *cell = cells + static_cast<size_t>(i) * state;
        const float *forget = in + state, *fresh = forget + state;
        for (int k = 0; k < state; ++k)
            cell[k] = (0.5f + 0.5f * forget[k]) * cell[k] + (0.5f + 0.5f * in[k]) * fresh[k];
        std::copy(cell, cell + state, in);
    }
    kernels_->finish(Finish::tanh, gates, 4 * state, n, state);
    for (int i = 0; i < n; ++i) {
        float* said = gates + static_cast<size_t>(i) * 4 * state;
        const float* out = said + 3 * state;
        for (int k = 0; k < state; ++k) said[k] *= 0.5f + 0.5f * out[k];
    }
}

// One direction of a layer that reads `in` (n_tokens, width): `said` (n_tokens, 2 state), the direction's half of it. In
// `work.before` (n, state) stays what is said of each text at its end.
void Bilstm::run(const Direction& direction, bool backwards, const float* in, int width, float* said,
                 Work& work) const {
    const int state = table_.state, gates = 4 * state;
    apply(direction.inputs, {in, width, nullptr, static_cast<int>(work.n_tokens)}, Finish::none, work.inputs.data(),
          work);
    std::fill(work.cells.begin(), work.cells.end(), 0.f);
    std::fill(work.before.begin(), work.before.end(), 0.f);
    int live = work.n();
    for (int64_t t = 0; t < work.lengths[0]; ++t) {
        while (work.lengths[live - 1] <= t) --live;
        apply(direction.states, {work.before.data(), state, nullptr, live}, Finish::none, work.gates.data(), work);
        for (int i = 0; i < live; ++i) {
            const float* input = work.inputs.data() + work.token(i, t, backwards) * gates;
            float* mine = work.gates.data() + static_cast<size_t>(i) * gates;
            for (int k = 0; k < gates; ++k) mine[k] += input[k];
        }
        step(work.gates.data(), work.cells.data(), live);
        for (int i = 0; i < live; ++i) {
            const float* now = work.gates.data() + static_cast<size_t>(i) * gates;
            std::copy(now, now + state, work.before.data() + static_cast<size_t>(i) * state);
            std::copy(now, now + state, said + work.token(i, t, backwards) * 2 * state + (backwards ? state : 0));
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
    for (int64_t start = 0; start < n_texts; start += TOGETHER) {
        const int64_t n = std::min<int64_t>(TOGETHER, n_texts - start);
        work.starts.clear(), work.lengths.clear(), work.offsets.clear();
        work.n_tokens = 0;
        for (int64_t i = start; i < start + n; ++i) {
            work.starts.push_back(edges[order[i]]);
            work.lengths.push_back(length(order[i]));
            work.offsets.push_back(work.n_tokens);
            work.n_tokens += work.lengths.back();
        }
        work.in.resize(work.n_tokens * table_.width);
        for (auto* said : {&work.one, &work.other}) said->resize(work.n_tokens * 2 * state);
        work.inputs.resize(work.n_tokens * 4 * state);
        work.gates.resize(n * 4 * state);
        for (auto* states : {&work.cells, &work.before}) states->resize(n * state);
        work.last.assign(n * 2 * state, 0.f);
        work.between.resize(n * table_.hidden_width);
        work.answers.resize(n * table_.n_classes);
        if (work.lengths[0]) {
            read(work, tokens);
            for (int way = 0; way < 2; ++way)
                run(first_[way], way, work.in.data(), table_.width, work.one.data(), work);
            for (int way = 0; way < 2; ++way) {
                run(second_[way], way, work.one.data(), 2 * table_.state, work.other.data(), work);
                for (int64_t i = 0; i < n; ++i)
                    std::copy_n(work.before.data() + i * state, state, work.last.data() + (2 * i + way) * state);
            }
        }
        const int rows = static_cast<int>(n);
        apply(hidden_, {work.last.data(), 2 * table_.state, nullptr, rows}, Finish::none, work.between.data(), work);
        for (float& x : work.between) x = std::max(x, 0.f);
        apply(output_, {work.between.data(), table_.hidden_width, nullptr, rows}, Finish::none, work.answers.data(),
              work);
        for (int64_t i = 0; i < n; ++i)
            std::copy_n(work.answers.data() + i * table_.n_classes, table_.n_classes,
                        logits + order[start + i] * table_.n_classes);
    }
}

}  // namespace ziggurat
