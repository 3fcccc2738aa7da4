#include "bind_engine.h"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

namespace ziggurat {

namespace {

Dtype dtype_named(const std::string& name) {
    if (name == "float32") return Dtype::f32;
    if (name == "bfloat16") return Dtype::bf16;
    refuse(name != "int8", "dtype '" + name + "': must be float32, bfloat16 or int8");
    return Dtype::i8;
}

const Kernels& kernels_for(const std::string& name) {
    for (const Kernels* one : kernels())
        if (name.empty() || name == one->name) return *one;
    throw std::invalid_argument("instruction set '" + name + "' is not available on this processor");
}

Finish activation_named(const std::string& name) {
    if (name == "gelu") return Finish::gelu;
    if (name == "gelu_tanh") return Finish::gelu_tanh;
    if (name == "relu") return Finish::relu;
    refuse(name != "tanh", "activation '" + name + "': must be gelu, gelu_tanh, relu or tanh");
    return Finish::tanh;
}

// An entry of the spec.
template <class T> T entry(const nb::dict& dict, const char* key) {
    T value;
    refuse(!nb::try_cast(nb::object(dict[key]), value), std::string("spec: '") + key + "' is not what it must be");
    return value;
}

Spec read_spec(const nb::dict& dict) {
    const auto whole = [&](const char* key) { return entry<int>(dict, key); };
    const auto named = [&](const char* key) { return activation_named(entry<std::string>(dict, key)); };
    return {whole("hidden"),
            whole("layers"),
            whole("heads"),
            whole("intermediate"),
            whole("vocabulary"),
            whole("positions"),
            whole("segments"),
            whole("position_offset"),
            whole("embedding_width"),
            whole("task_types"),
            named("activation"),
            named("head_activation"),
            entry<float>(dict, "layer_norm_eps"),
            entry<bool>(dict, "norm_first"),
            entry<bool>(dict, "gated"),
            entry<std::vector<float>>(dict, "rotary"),
            entry<std::vector<int>>(dict, "windows"),
            entry<std::string>(dict, "pooling") == "mean"};
}

// An array of just this type, contiguous: nothing is converted, and no float becomes a token id.
auto exact(const char* name) { return nb::arg(name).noconvert(); }

}  // namespace

Engine::Engine(const nb::dict& spec, const nb::dict& tensors, const std::vector<int>& head_layers,
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
    model_ = make_model(read_spec(spec), named, head_layers, dtype_named(dtype), kernels_for(instructions));
    for (const char* kind : {"word", "position"}) {
        const std::string name = "encoder.embeddings." + std::string(kind) + ".weight";
        if (tensors.contains(name.c_str())) kept_alive_.append(tensors[name.c_str()]);
    }
}

Engine::~Engine() {
    if (shared_->process != forks()) (void)shared_.release();
}

// The caller has the interpreter's lock, so nothing replaces it meanwhile.
Engine::Shared& Engine::shared() {
    if (shared_->process != forks()) {
        (void)shared_.release();
        shared_ = std::make_unique<Shared>();
        threads_ = wanted_threads_;
    }
    return *shared_;
}

size_t Engine::workspace_bytes() {
    Shared& mine = shared();
    const WithoutGil others_run;
    const std::lock_guard<std::mutex> lock(mine.mutex);
    return mine.work.bytes();
}

Out<float> Engine::embed(const In<int64_t>& ids, const In<int64_t>& positions) {
    const Tokens tokens = check_ids(ids, positions);
    const int n = static_cast<int>(tokens.positions.size());
    auto states = filled<float>({size_t(n), size_t(width())}, 0);
    locked([&](Pass& pass) { pass.embed(tokens.ids.data(), tokens.positions.data(), n, states.data()); });
    return states;
}

nb::tuple Engine::context(int layer, const In<float>& states, const In<int64_t>& positions,
                          const In<int64_t>& cu_seqlens, bool scored, bool from_others) {
    check_layer(layer);
    const int n = matrix_rows(states, width(), "states");
    const std::vector<int64_t> places = check_positions(positions, n);
    const Edges edges = edges_of(cu_seqlens, n);
    refuse(int64_t{n} * model_->spec.heads > INT32_MAX, "states: too many rows");
    auto context = filled<float>({size_t(n), size_t(width())}, 0);
    auto scores = filled<float>({size_t(scored ? n : 0)}, 0);
    locked([&](Pass& pass) {
        pass.context(layer, states.data(), places.data(), edges, context.data(), scored ? scores.data() : nullptr,
                     from_others);
    });
    return nb::make_tuple(context, scores);
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
    auto said = filled<float>({size_t(count(edges)), size_t(n_classes())}, 0);
    locked([&](Pass& pass) { pass.logits(rung, states.data(), edges, said.data()); });
    return said;
}

std::vector<int64_t> Engine::check_positions(const In<int64_t>& positions, int n) const {
    check_length(positions, n, "positions");
    auto places = copy_of(positions);
    check_range(places.data(), n, 1, model_->spec.positions, "position");
    return places;
}

Engine::Tokens Engine::check_ids(const In<int64_t>& ids, const In<int64_t>& positions) const {
    const int n = matrix_rows(ids, 2, "ids");
    Tokens tokens{copy_of(ids), check_positions(positions, n)};
    check_range(tokens.ids.data(), n, 2, model_->spec.vocabulary, "token id");
    if (model_->spec.reads_segments()) check_range(tokens.ids.data() + 1, n, 2, model_->spec.segments, "segment id");
    return tokens;
}

void bind_engine(nb::module_& module) {
    nb::class_<Engine>(module, "Engine")
        .def(nb::init<const nb::dict&, const nb::dict&, const std::vector<int>&, const std::string&, int,
                      const std::string&>(),
             nb::arg("spec"), nb::arg("tensors"), nb::arg("head_layers"), nb::arg("dtype"), nb::arg("threads"),
             nb::arg("instructions") = "")
        .def_prop_ro("instructions", &Engine::instructions)
        .def_prop_ro("threads", &Engine::threads)
        .def_prop_ro("n_classes", &Engine::n_classes)
        .def_prop_ro("rung_layers", &Engine::rung_layers)
        .def_prop_ro("workspace_bytes", &Engine::workspace_bytes,
                     "Memory that calls use again and again; it only grows.")
        .def("embed", &Engine::embed, exact("ids"), exact("positions"))
        .def("context", &Engine::context, nb::arg("layer"), exact("states"), exact("positions"), exact("cu_seqlens"),
             nb::arg("scored"), nb::arg("from_others"))
        .def("finish", &Engine::finish, nb::arg("layer"), exact("states"), exact("context"))
        .def("guess", &Engine::guess, nb::arg("layer"), exact("states"), exact("cu_seqlens"))
        .def("logits", &Engine::logits, nb::arg("rung"), exact("states"), exact("cu_seqlens"))
        .def("answer", &Engine::answer, exact("ids"), exact("positions"), exact("cu_seqlens"), exact("original"),
             exact("batches"), nb::arg("exits"), nb::arg("tokens").none())
        .def("run", &Engine::run, exact("ids"), exact("positions"), exact("cu_seqlens"), exact("original"),
             nb::arg("exits"), nb::arg("tokens").none(), nb::arg("last"))
        .def("resume", &Engine::resume, exact("states"), exact("positions"), exact("cu_seqlens"), exact("original"),
             exact("history"), nb::arg("exits"), nb::arg("tokens").none(), nb::arg("first"), nb::arg("last"));
}

}  // namespace ziggurat
