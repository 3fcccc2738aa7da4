// The class `Engine`: a model from Python, single steps, and whole inputs through layers and exits.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "python/bindings.h"

namespace ziggurat {
namespace {

Dtype dtype_of(const std::string& name) {
    if (name == "float32") return Dtype::f32;
    if (name == "bfloat16") return Dtype::bf16;
    refuse(name != "int8", "dtype '" + name + "': must be float32, bfloat16 or int8");
    return Dtype::i8;
}

const Kernels& kernels_for(const std::string& name) {
    for (const Kernels* set : kernels())
        if (name.empty() || name == set->name) return *set;
    throw std::invalid_argument("instruction set '" + name + "' is not available on this processor");
}

Finish activation_of(const std::string& name) {
    if (name == "gelu") return Finish::gelu;
    if (name == "gelu_tanh") return Finish::gelu_tanh;
    if (name == "relu") return Finish::relu;
    refuse(name != "tanh", "activation '" + name + "': must be gelu, gelu_tanh, relu or tanh");
    return Finish::tanh;
}

// An entry of the spec.
template <class T> T entry(const nb::dict& dict, const char* key) {
    T value{};
    refuse(!nb::try_cast(nb::object(dict[key]), value), std::string("spec: '") + key + "' is not what it must be");
    return value;
}

Spec read_spec(const nb::dict& dict) {
    const auto integer = [&](const char* key) { return entry<int>(dict, key); };
    const auto activation = [&](const char* key) { return activation_of(entry<std::string>(dict, key)); };
    return {integer("hidden"),
            integer("layers"),
            integer("heads"),
            integer("intermediate"),
            integer("vocabulary"),
            integer("positions"),
            integer("segments"),
            integer("position_offset"),
            integer("embedding_width"),
            integer("task_types"),
            activation("activation"),
            activation("head_activation"),
            entry<float>(dict, "layer_norm_eps"),
            entry<bool>(dict, "norm_first"),
            entry<bool>(dict, "gated"),
            entry<std::vector<float>>(dict, "rotary"),
            entry<std::vector<int>>(dict, "windows"),
            entry<std::string>(dict, "pooling") == "mean"};
}

}  // namespace

Engine::Engine(const SpecDict& spec, const TensorDict& tensors, const std::vector<int>& head_layers,
               const std::string& dtype, int threads, const std::string& instructions)
    : wanted_threads_(threads), threads_(threads) {
    refuse(threads < 1 || threads > 1024, "threads: must be at least 1 and at most 1024");
    Tensors named;
    for (const auto& [name, value] : tensors) {
        In<float> array;
        const bool fits = nb::try_cast(value, array, false);
        refuse(!fits, "tensor " + nb::cast<std::string>(name) + ": must be a contiguous float32 array");
        Tensor tensor{array.data(), {}};
        for (size_t axis = 0; axis < array.ndim(); ++axis)
            tensor.shape.push_back(static_cast<int64_t>(array.shape(axis)));
        named[nb::cast<std::string>(name)] = tensor;
    }
    model_ = make_model(read_spec(spec), named, head_layers, dtype_of(dtype), kernels_for(instructions));
    for (const char* kind : {"word", "position"}) {
        const std::string name = "encoder.embeddings." + std::string(kind) + ".weight";
        if (tensors.contains(name.c_str())) kept_alive_.append(tensors[name.c_str()]);
    }
}

Engine::~Engine() {
    if (call_state_->process != forks()) (void)call_state_.release();
}

// The caller holds the interpreter's lock, so no other thread replaces the state meanwhile.
Engine::CallState& Engine::call_state() {
    if (call_state_->process != forks()) {
        (void)call_state_.release();
        call_state_ = std::make_unique<CallState>();
        threads_ = wanted_threads_;
    }
    return *call_state_;
}

size_t Engine::workspace_bytes() {
    CallState& state = call_state();
    const WithoutGil released;
    const std::lock_guard<std::mutex> lock(state.mutex);
    return state.work.bytes();
}

Out<float> Engine::embed(const In<int64_t>& ids, const In<int64_t>& positions) {
    const Tokens tokens = check_ids(ids, positions);
    const int n = static_cast<int>(tokens.positions.size());
    auto states = filled<float>({size_t(n), size_t(width())}, 0);
    locked([&](Pass& pass) { pass.embed(tokens.ids.data(), tokens.positions.data(), n, states.data()); });
    return states;
}

std::tuple<Out<float>, Out<float>> Engine::context(int layer, const In<float>& states, const In<int64_t>& positions,
                                                   const In<int64_t>& cu_seqlens, bool scored, bool from_others) {
    check_layer(layer);
    const int n = matrix_rows(states, width(), "states");
    const std::vector<int64_t> copied_positions = check_positions(positions, n);
    const Edges edges = edges_of(cu_seqlens, n);
    refuse(int64_t{n} * model_->spec.heads > INT32_MAX, "states: too many rows");
    auto context = filled<float>({size_t(n), size_t(width())}, 0);
    auto scores = filled<float>({size_t(scored ? n : 0)}, 0);
    locked([&](Pass& pass) {
        pass.context(layer, states.data(), copied_positions.data(), edges, context.data(),
                     scored ? scores.data() : nullptr, from_others);
    });
    return {context, scores};
}

Out<float> Engine::finish(int layer, const In<float>& states, const In<float>& context) {
    check_layer(layer);
    const int n = matrix_rows(states, width(), "states"), d = width();
    refuse(matrix_rows(context, width(), "context") != n, "context: must have as many rows as states");
    auto out = filled<float>({size_t(n), size_t(d)}, 0);
    locked([&](Pass& pass) {
        pass.finish(layer, {states.data(), d, nullptr, n}, {context.data(), d, nullptr, n}, out.data());
    });
    return out;
}

Out<float> Engine::guess(int layer, const In<float>& states, const In<int64_t>& cu_seqlens) {
    check_layer(layer);
    refuse(model_->layers[layer - 1].guess.empty(), "the model has no guesses");
    const int n = matrix_rows(states, width(), "states");
    const Edges edges = edges_of(cu_seqlens, n);
    auto scores = filled<float>({size_t(n)}, 0);
    locked([&](Pass& pass) { pass.guess(layer, states.data(), edges, scores.data()); });
    return scores;
}

Out<float> Engine::logits(int rung, const In<float>& states, const In<int64_t>& cu_seqlens) {
    refuse(rung < 0 || rung >= static_cast<int>(model_->heads.size()), "rung: the model has no such");
    const Edges edges = edges_of(cu_seqlens, matrix_rows(states, width(), "states"));
    auto logits = filled<float>({size_t(count(edges)), size_t(n_classes())}, 0);
    locked([&](Pass& pass) { pass.logits(rung, states.data(), edges, logits.data()); });
    return logits;
}

std::vector<int64_t> Engine::check_positions(const In<int64_t>& positions, int n) const {
    check_length(positions, n, "positions");
    auto copied_positions = copy_of(positions);
    check_range(copied_positions.data(), n, 1, model_->spec.positions, "position");
    return copied_positions;
}

Engine::Tokens Engine::check_ids(const In<int64_t>& ids, const In<int64_t>& positions) const {
    const int n = matrix_rows(ids, 2, "ids");
    Tokens tokens{copy_of(ids), check_positions(positions, n)};
    check_range(tokens.ids.data(), n, 2, model_->spec.vocabulary, "token id");
    if (model_->spec.reads_segments()) check_range(tokens.ids.data() + 1, n, 2, model_->spec.segments, "segment id");
    return tokens;
}

// The arrays that a call returns.
struct Engine::Results {
    Results(const Engine& engine, int n)
        : logits(filled<float>({size_t(n), size_t(engine.n_classes())}, std::numeric_limits<float>::quiet_NaN())),
          rungs(filled<int64_t>({size_t(n)}, -1)),
          seconds(filled<double>({size_t(n)}, std::numeric_limits<double>::quiet_NaN())),
          kept(filled<int64_t>({size_t(n), size_t(engine.model_->spec.layers + 1)}, 0)),
          history(filled<float>({size_t(n), engine.model_->rung_layers.size(), size_t(engine.n_classes())}, 0)) {}

    Outcomes view() { return {logits.data(), rungs.data(), seconds.data(), kept.data(), history.data()}; }

    Out<float> logits;
    Out<int64_t> rungs;
    Out<double> seconds;
    Out<int64_t> kept;
    Out<float> history;
};

void Engine::check_exits(const OwnedExitRule& rule, int n_seqs) const {
    refuse(rule.n_rungs != static_cast<int>(model_->rung_layers.size()) || (rule.n_rows != 1 && rule.n_rows != n_seqs),
           "thresholds: must be (1 or n_seqs, n_rungs - 1)");
    rule.check_classes(n_classes());
}

void Engine::check_tokens(const OwnedTokenRule& rule) const {
    refuse(static_cast<int>(rule.values.size()) != model_->spec.layers, "pruning values: must be one for each layer");
    refuse(!rule.vocabulary.empty() && static_cast<int>(rule.vocabulary.size()) != model_->spec.vocabulary,
           "vocabulary: must have one entry for each of the model's");
    refuse(rule.score == TokenScore::predicted && model_->layers[0].guess.empty(), "the model has no guesses");
}

template <class Call>
void Engine::with_rules(const Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                        const OwnedTokenRule* tokens, const Call& call) {
    const int n = static_cast<int>(results.rungs.shape(0));
    check_length(original, n, "original");
    check_exits(exits, n);
    if (tokens) check_tokens(*tokens);
    const Rules rules{tokens ? tokens->view() : TokenRule{}, exits.view(), original.data()};
    locked([&](Pass& pass) { call(pass, rules); });
}

template <class Begin>
Partial Engine::run_layers(Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                           const OwnedTokenRule* tokens, int first, int last, const Begin& begin) {
    const auto started = std::chrono::steady_clock::now();
    refuse(first < 1 || last < first || last > model_->spec.layers, "layers: must be 1 <= first <= last <= L");
    Live live;
    with_rules(results, original, exits, tokens, [&](Pass& pass, const Rules& rules) {
        live = begin(pass, rules);
        advance(pass, live, first, last, rules, results.view(), started);
    });
    return {results.logits, results.rungs, results.seconds, results.kept, results.history, survivors(live)};
}

// The sequences that still run: states, positions, cu_seqlens, index of each among the inputs.
Survivors Engine::survivors(const Live& live) const {
    const size_t n = count(live.edges), n_tokens = n ? live.edges.back() : 0;
    auto states = filled<float>({n_tokens, size_t(width())}, 0);
    auto positions = filled<int64_t>({n_tokens}, 0);
    auto edges = filled<int64_t>({n + 1}, 0);
    auto sequences = filled<int64_t>({n}, 0);
    if (n_tokens) std::copy_n(live.states.as<float>(), n_tokens * width(), states.data());
    std::copy_n(live.positions.begin(), n_tokens, positions.data());
    std::copy(live.edges.begin(), live.edges.end(), edges.data());
    std::copy(live.sequences.begin(), live.sequences.end(), sequences.data());
    return {states, positions, edges, sequences};
}

Partial Engine::run(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                    const In<int64_t>& original, const OwnedExitRule& exits, const OwnedTokenRule* tokens, int last) {
    const Tokens tokens_in = check_ids(ids, positions);
    const Edges edges = edges_of(cu_seqlens, static_cast<int>(tokens_in.positions.size()));
    Results results(*this, count(edges));
    return run_layers(results, original, exits, tokens, 1, last, [&](Pass& pass, const Rules& rules) {
        return start(pass, tokens_in.ids.data(), tokens_in.positions.data(), edges, 0, rules, results.view());
    });
}

Answers Engine::answer(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                       const In<int64_t>& original, const In<int64_t>& batches, const OwnedExitRule& exits,
                       const OwnedTokenRule* tokens) {
    const Tokens tokens_in = check_ids(ids, positions);
    const Edges edges = edges_of(cu_seqlens, static_cast<int>(tokens_in.positions.size()));
    const Edges batch_edges = edges_of(batches, count(edges), "batches", "sequence");
    Results results(*this, count(edges));
    with_rules(results, original, exits, tokens, [&](Pass& pass, const Rules& rules) {
        answer_batches(pass, tokens_in.ids.data(), tokens_in.positions.data(), edges, batch_edges, rules,
                       results.view());
    });
    return {results.logits, results.rungs, results.seconds, results.kept};
}

Partial Engine::resume(const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                       const In<int64_t>& original, const In<float>& history, const OwnedExitRule& exits,
                       const OwnedTokenRule* tokens, int first, int last) {
    const int n = matrix_rows(states, width(), "states");
    const Edges edges = edges_of(cu_seqlens, n);
    const std::vector<int64_t> copied_positions = check_positions(positions, n);
    Results results(*this, count(edges));
    refuse(history.size() != results.history.size(), "history: must be (n_seqs, n_rungs, n_classes)");
    std::copy_n(history.data(), history.size(), results.history.data());
    return run_layers(results, original, exits, tokens, first, last, [&](Pass&, const Rules&) {
        Live live{Buffer(states.size() * sizeof(float)), edges, copied_positions, {}};
        std::copy_n(states.data(), states.size(), live.states.as<float>());
        for (int i = 0; i < count(edges); ++i) live.sequences.push_back(i);
        return live;
    });
}

void bind_engine(nb::module_& module) {
    nb::class_<Engine>(
        module, "Engine",
        "A model with its threads and its memory. Calls from several Python threads run one after the other.\n\n"
        "Arrays are C-contiguous and have exactly the given dtype: nothing is converted. n = tokens, d = width,\n"
        "L = layers. An argument that does not fit raises TypeError or ValueError, which names it.")
        .def(nb::init<const SpecDict&, const TensorDict&, const std::vector<int>&, const std::string&, int,
                      const std::string&>(),
             nb::arg("spec"), nb::arg("tensors"), nb::arg("head_layers"), nb::arg("dtype"), nb::arg("threads"),
             nb::arg("instructions") = "",
             "spec: fields of EncoderSpec. tensors: float32, by their names in our state dict; embeddings are not "
             "copied.\n"
             "head_layers: 1 … L - 1, rising. dtype: float32, bfloat16 or int8. instructions: \"\" = the fastest.")
        .def_prop_ro("instructions", &Engine::instructions, "Name of the instruction set.")
        .def_prop_ro("threads", &Engine::threads,
                     "The number of threads that compute; before the first call the number that was requested.")
        .def_prop_ro("n_classes", &Engine::n_classes)
        .def_prop_ro("rung_layers", &Engine::rung_layers, "The layer of each rung: the head layers, then L.")
        .def_prop_ro("workspace_bytes", &Engine::workspace_bytes, "Memory that all calls reuse; it only grows.")
        .def("embed", &Engine::embed, exact("ids"), exact("positions"),
             "ids (n, 2): token and segment ids, at positions (n) of their texts → states (n, d).")
        .def("context", &Engine::context, nb::arg("layer"), exact("states"), exact("positions"), exact("cu_seqlens"),
             nb::arg("scored"), nb::arg("from_others"),
             "Attention of layer 1 … L: states (n, d), positions (n), cu_seqlens (n_seqs + 1) → context (n, d) and "
             "received\n"
             "attention (n) with mean 1 over a sequence, or (0) unless `scored`. from_others: without each token's own "
             "query.")
        .def("finish", &Engine::finish, nb::arg("layer"), exact("states"), exact("context"),
             "The rest of the layer: states that entered it (n, d) and their context (n, d) → states (n, d).")
        .def("guess", &Engine::guess, nb::arg("layer"), exact("states"), exact("cu_seqlens"),
             "Token scores (n) that the layer predicts from the states (n, d) which enter it; mean 1 over a sequence.")
        .def("logits", &Engine::logits, nb::arg("rung"), exact("states"), exact("cu_seqlens"),
             "The head of a rung, from 0: states (n, d), cu_seqlens (n_seqs + 1) → logits (n_seqs, n_classes).")
        .def("answer", &Engine::answer, exact("ids"), exact("positions"), exact("cu_seqlens"), exact("original"),
             exact("batches"), nb::arg("exits"), nb::arg("tokens").none(),
             "Runs whole inputs until they exit: ids (n, 2), positions (n), cu_seqlens (n_seqs + 1), original "
             "(n_seqs):\n"
             "tokens before any pruning, batches (n_batches + 1): boundaries of batches among the sequences.\n\n"
             "Returns logits (n_seqs, n_classes) and rungs (n_seqs) of the exits, seconds (n_seqs) from the start of "
             "the\n"
             "batch, kept (n_seqs, L + 1): tokens that entered layer 1, then tokens after each layer, 0 = it did not "
             "run.")
        .def("run", &Engine::run, exact("ids"), exact("positions"), exact("cu_seqlens"), exact("original"),
             nb::arg("exits"), nb::arg("tokens").none(), nb::arg("last"),
             "Runs whole inputs as one batch through layers 1 … last. Returns what `answer` returns (rung -1, NaN "
             "logits and\n"
             "seconds for inputs that still run), history (n_seqs, n_rungs, n_classes): logits of the active rungs so "
             "far, and\n"
             "of the sequences that still run states (m, d), positions (m), cu_seqlens and their indices among the "
             "inputs.")
        .def("resume", &Engine::resume, exact("states"), exact("positions"), exact("cu_seqlens"), exact("original"),
             exact("history"), nb::arg("exits"), nb::arg("tokens").none(), nb::arg("first"), nb::arg("last"),
             "Continues `run`: from the states (n, d) before layer `first` through layers first … last, with the "
             "history\n"
             "(n_seqs, n_rungs, n_classes) of the sequences. Returns what `run` returns.");
}

}  // namespace ziggurat
