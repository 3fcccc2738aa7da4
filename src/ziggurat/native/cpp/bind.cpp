// What Python sees: `ziggurat.native._core`.
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <unistd.h>

#include <limits>
#include <mutex>

#include "adaptive.h"
#include "arrays.h"
#include "bind_rules.h"
#include "bind_bilstm.h"
#include "bind_static.h"

namespace ziggurat {

void bind_kernels(nb::module_& module);

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

Spec read_spec(const nb::dict& dict) {
    const auto whole = [&](const char* key) { return nb::cast<int>(dict[key]); };
    return {whole("hidden"),
            whole("layers"),
            whole("heads"),
            whole("intermediate"),
            whole("vocabulary"),
            whole("positions"),
            whole("segments"),
            nb::cast<std::string>(dict["activation"]) == "gelu_tanh",
            nb::cast<float>(dict["layer_norm_eps"])};
}

// A model, its threads and its memory. Calls from several Python threads wait for each other.
class Engine {
  public:
    Engine(const nb::dict& spec, const nb::dict& tensors, const std::vector<int>& head_layers, const std::string& dtype,
           int threads, const std::string& instructions)
        : threads_(threads) {
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
        for (const char* kind : {"word", "position", "segment"})
            kept_alive_.append(tensors[("encoder.embeddings." + std::string(kind) + ".weight").c_str()]);
    }

    const char* instructions() const { return model_->kernels->name; }
    int threads() const { return threads_; }
    int n_classes() const { return model_->n_classes; }
    std::vector<int> rung_layers() const { return model_->rung_layers; }

    Out<float> embed(const In<int64_t>& ids, const In<int64_t>& positions) {
        const int n = check_ids(ids, positions);
        auto states = filled<float>({size_t(n), size_t(width())}, 0);
        locked([&](Pass& pass) { pass.embed(ids.data(), positions.data(), n, states.data()); });
        return states;
    }

    nb::tuple context(int layer, const In<float>& states, const In<int64_t>& cu_seqlens, bool scored,
                      bool from_others) {
        check_layer(layer);
        const int n = matrix_rows(states, width(), "states");
        const Edges edges = edges_of(cu_seqlens, n);
        auto context = filled<float>({size_t(n), size_t(width())}, 0);
        auto scores = filled<float>({size_t(scored ? n : 0)}, 0);
        locked([&](Pass& pass) {
            pass.context(layer, states.data(), edges, context.data(), scored ? scores.data() : nullptr, from_others);
        });
        return nb::make_tuple(context, scores);
    }

    Out<float> finish(int layer, const In<float>& states, const In<float>& context) {
        check_layer(layer);
        const int n = matrix_rows(states, width(), "states"), d = width();
        refuse(matrix_rows(context, width(), "context") != n, "context: must have as many rows as states");
        auto out = filled<float>({size_t(n), size_t(d)}, 0);
        locked([&](Pass& pass) {
            pass.finish(layer, {states.data(), d, nullptr, n}, {context.data(), d, nullptr, n}, out.data());
        });
        return out;
    }

    Out<float> guess(int layer, const In<float>& states, const In<int64_t>& cu_seqlens) {
        check_layer(layer);
        refuse(model_->layers[layer - 1].guess.empty(), "the model has no guesses");
        const int n = matrix_rows(states, width(), "states");
        const Edges edges = edges_of(cu_seqlens, n);
        auto scores = filled<float>({size_t(n)}, 0);
        locked([&](Pass& pass) { pass.guess(layer, states.data(), edges, scores.data()); });
        return scores;
    }

    Out<float> logits(int rung, const In<float>& states, const In<int64_t>& cu_seqlens) {
        refuse(rung < 0 || rung >= static_cast<int>(model_->heads.size()), "rung: the model has no such");
        const Edges edges = edges_of(cu_seqlens, matrix_rows(states, width(), "states"));
        auto said = filled<float>({size_t(count(edges)), size_t(n_classes())}, 0);
        locked([&](Pass& pass) { pass.logits(rung, states.data(), edges, said.data()); });
        return said;
    }

    // Whole inputs from their ids through layers 1 … last.
    nb::tuple run(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                  const In<int64_t>& original, const OwnedExitRule& exits, const OwnedTokenRule* tokens, int last) {
        const Edges edges = edges_of(cu_seqlens, check_ids(ids, positions));
        Results results(*this, count(edges));
        return travel(results, original, exits, tokens, 1, last, [&](Pass& pass, const Rules& rules) {
            return start(pass, ids.data(), positions.data(), edges, rules, results.view());
        });
    }

    // Sequences that stand before layer `first` through layers first … last; `history` is what asked rungs have said.
    nb::tuple resume(const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                     const In<int64_t>& original, const In<float>& history, const OwnedExitRule& exits,
                     const OwnedTokenRule* tokens, int first, int last) {
        const int n = matrix_rows(states, width(), "states");
        const Edges edges = edges_of(cu_seqlens, n);
        check_length(positions, n, "positions");
        Results results(*this, count(edges));
        refuse(history.size() != results.history.size(), "history: must be (n_seqs, n_rungs, n_classes)");
        std::copy_n(history.data(), history.size(), results.history.data());
        return travel(results, original, exits, tokens, first, last, [&](Pass&, const Rules&) {
            Live live{Buffer(states.size() * sizeof(float)), edges, {positions.data(), positions.data() + n}, {}};
            std::copy_n(states.data(), states.size(), live.states.as<float>());
            for (int i = 0; i < count(edges); ++i) live.sequences.push_back(i);
            return live;
        });
    }

  private:
    // The arrays that a call answers with.
    struct Results {
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

    template <class Begin>
    nb::tuple travel(Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                     const OwnedTokenRule* tokens, int first, int last, const Begin& begin) {
        const auto begun = std::chrono::steady_clock::now();
        const int n = static_cast<int>(results.rungs.shape(0)), layers = model_->spec.layers;
        refuse(first < 1 || last < first || last > layers, "layers: must be 1 <= first <= last <= L");
        check_length(original, n, "original");
        refuse(
            exits.n_rungs != static_cast<int>(model_->rung_layers.size()) || (exits.n_rows != 1 && exits.n_rows != n),
            "thresholds: must be (1 or n_seqs, n_rungs - 1)");
        if (tokens) check_tokens(*tokens);
        const Rules rules{tokens ? tokens->view() : TokenRule{}, exits.view(), original.data()};
        Live live;
        locked([&](Pass& pass) {
            live = begin(pass, rules);
            advance(pass, live, first, last, rules, results.view(), begun);
        });
        return nb::make_tuple(results.logits, results.rungs, results.seconds, results.kept, results.history,
                              left(live));
    }

    // Sequences that are still on their way: states, positions, cu_seqlens, which input each is.
    nb::tuple left(const Live& live) const {
        const size_t n = count(live.edges), n_tokens = n ? live.edges.back() : 0;
        auto states = filled<float>({n_tokens, size_t(width())}, 0);
        auto positions = filled<int64_t>({n_tokens}, 0);
        auto edges = filled<int64_t>({n + 1}, 0);
        auto sequences = filled<int64_t>({n}, 0);
        if (n_tokens) std::copy_n(live.states.as<float>(), n_tokens * width(), states.data());
        std::copy_n(live.positions.begin(), n_tokens, positions.data());
        std::copy(live.edges.begin(), live.edges.end(), edges.data());
        std::copy(live.sequences.begin(), live.sequences.end(), sequences.data());
        return nb::make_tuple(states, positions, edges, sequences);
    }

    int width() const { return model_->spec.hidden; }

    void check_layer(int layer) const { refuse(layer < 1 || layer > model_->spec.layers, "layer: must be 1 … L"); }

    int check_ids(const In<int64_t>& ids, const In<int64_t>& positions) const {
        const int n = matrix_rows(ids, 2, "ids");
        check_length(positions, n, "positions");
        check_range(ids.data(), n, 2, model_->spec.vocabulary, "token id");
        check_range(ids.data() + 1, n, 2, model_->spec.segments, "segment id");
        check_range(positions.data(), n, 1, model_->spec.positions, "position");
        return n;
    }

    void check_tokens(const OwnedTokenRule& rule) const {
        refuse(static_cast<int>(rule.values.size()) != model_->spec.layers,
               "pruning values: must be one for each layer");
        refuse(!rule.vocabulary.empty() && static_cast<int>(rule.vocabulary.size()) != model_->spec.vocabulary,
               "vocabulary: must have one entry for each of the model's");
        refuse(rule.score == TokenScore::predicted && model_->layers[0].guess.empty(), "the model has no guesses");
    }

    template <class Call> void locked(const Call& call) {
        const nb::gil_scoped_release without_gil;
        const std::lock_guard<std::mutex> lock(mutex_);
        if (owner_ != getpid()) {
            // A forked child has none of its parent's threads; theirs are left alone and new ones start.
            (void)team_.release();
            team_ = std::make_unique<Team>(threads_);
            owner_ = getpid();
        }
        Pass pass(*model_, *team_, work_);
        call(pass);
    }

    std::unique_ptr<Model> model_;
    nb::list kept_alive_;  // embeddings, which the model reads where they are
    int threads_;
    std::unique_ptr<Team> team_;
    pid_t owner_ = -1;
    Workspace work_;
    std::mutex mutex_;
};

}  // namespace
}  // namespace ziggurat

using namespace ziggurat;

// An array of just this type, contiguous: nothing is converted, and no float becomes a token id.
static auto exact(const char* name) { return nb::arg(name).noconvert(); }

NB_MODULE(_core, module) {
    nb::set_leak_warnings(false);
    bind_rules(module);
    bind_kernels(module);
    bind_static(module);
    bind_bilstm(module);
    nb::class_<Engine>(module, "Engine")
        .def(nb::init<const nb::dict&, const nb::dict&, const std::vector<int>&, const std::string&, int,
                      const std::string&>(),
             nb::arg("spec"), nb::arg("tensors"), nb::arg("head_layers"), nb::arg("dtype"), nb::arg("threads"),
             nb::arg("instructions") = "")
        .def_prop_ro("instructions", &Engine::instructions)
        .def_prop_ro("threads", &Engine::threads)
        .def_prop_ro("n_classes", &Engine::n_classes)
        .def_prop_ro("rung_layers", &Engine::rung_layers)
        .def("embed", &Engine::embed, exact("ids"), exact("positions"))
        .def("context", &Engine::context, nb::arg("layer"), exact("states"), exact("cu_seqlens"), nb::arg("scored"),
             nb::arg("from_others"))
        .def("finish", &Engine::finish, nb::arg("layer"), exact("states"), exact("context"))
        .def("guess", &Engine::guess, nb::arg("layer"), exact("states"), exact("cu_seqlens"))
        .def("logits", &Engine::logits, nb::arg("rung"), exact("states"), exact("cu_seqlens"))
        .def("run", &Engine::run, exact("ids"), exact("positions"), exact("cu_seqlens"), exact("original"),
             nb::arg("exits"), nb::arg("tokens").none(), nb::arg("last"))
        .def("resume", &Engine::resume, exact("states"), exact("positions"), exact("cu_seqlens"), exact("original"),
             exact("history"), nb::arg("exits"), nb::arg("tokens").none(), nb::arg("first"), nb::arg("last"));
    module.def("instructions", [] {
        std::vector<std::string> names;
        for (const Kernels* one : kernels()) names.emplace_back(one->name);
        return names;
    });
}
