// Shared by the files of the bindings: process events, rules and engine as Python sees them, one function per group of
// bindings.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "engine/adaptive.h"
#include "python/arrays.h"

namespace ziggurat {

// The number of forks between this process and the one that loaded the library. An object made at another number has
// threads that do not exist here, and perhaps a lock that one of them held: it is abandoned, not even destroyed.
// (Process ids would not do: in a container of its own a child may have the id of its parent.)
unsigned forks();

// Releases the interpreter's lock (GIL) while it exists. Made and destroyed by a thread that holds the lock.
//
// When the interpreter shuts down, Python (until 3.13) ends a daemon thread at the point where it requests the lock.
// That would be this destructor, and the process would abort. So the shutdown waits for all threads that have released
// the lock here, and from then on none releases it: later calls compute with the lock, and Python ends their threads in
// its own code.
class WithoutGil {
  public:
    WithoutGil();
    ~WithoutGil();
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;

  private:
    PyThreadState* state_;  // null: not released
};

// Registers for forks and for the shutdown of the interpreter. Called once, when the module is made.
void watch_process();

// Rules as Python makes them: they own their numbers, and `view` gives what the engine reads.
struct OwnedExitRule {
    ExitScore score;
    double parameter;
    int n_rows, n_rungs;
    std::vector<double> thresholds, temperatures, deferral;  // deferral: (n_rungs - 1, deferral_columns)
    int deferral_columns = 0;

    OwnedExitRule(const std::string& score, double parameter, const In<double>& thresholds,
                  std::optional<In<double>> temperatures, std::optional<In<double>> deferral);
    ExitRule view() const;

    // Scores (n) of a history (n, active rungs so far, n_classes) at an active rung before the last. For tests.
    Out<double> values(int rung, const In<float>& history) const;

    void check_classes(int n_classes) const;
};

struct OwnedTokenRule {
    Keep keep;
    TokenScore score;
    Scale scale;
    std::vector<double> values;
    std::vector<uint8_t> vocabulary;

    OwnedTokenRule(const std::string& keep, const std::string& score, const std::string& scale,
                   const In<double>& values, std::optional<In<bool>> vocabulary);
    TokenRule view() const;
};

using SpecDict = nb::typed<nb::dict, nb::str, nb::any>;
using TensorDict = nb::typed<nb::dict, nb::str, Out<float>>;

// Results per input: logits, rungs, seconds, kept; see `Outcomes`.
using Answers = std::tuple<Out<float>, Out<int64_t>, Out<double>, Out<int64_t>>;
// The sequences that still run: states, positions, cu_seqlens, index of each among the inputs.
using Survivors = std::tuple<Out<float>, Out<int64_t>, Out<int64_t>, Out<int64_t>>;
// Results so far, history, and the sequences that still run.
using Partial = std::tuple<Out<float>, Out<int64_t>, Out<double>, Out<int64_t>, Out<float>, Survivors>;

// A model, its threads and its memory. Calls from several Python threads run one after the other.
class Engine {
  public:
    Engine(const SpecDict& spec, const TensorDict& tensors, const std::vector<int>& head_layers,
           const std::string& dtype, int threads, const std::string& instructions);
    ~Engine();

    const char* instructions() const { return model_->kernels->name; }
    // The number of threads that compute; before the first call the number that was requested.
    int threads() const { return threads_; }
    int n_classes() const { return model_->n_classes; }
    std::vector<int> rung_layers() const { return model_->rung_layers; }
    size_t workspace_bytes();

    // Single steps of the forward pass.
    Out<float> embed(const In<int64_t>& ids, const In<int64_t>& positions);
    std::tuple<Out<float>, Out<float>> context(int layer, const In<float>& states, const In<int64_t>& positions,
                                               const In<int64_t>& cu_seqlens, bool scored, bool from_others);
    Out<float> finish(int layer, const In<float>& states, const In<float>& context);
    Out<float> guess(int layer, const In<float>& states, const In<int64_t>& cu_seqlens);
    Out<float> logits(int rung, const In<float>& states, const In<int64_t>& cu_seqlens);

    // Runs whole inputs until they exit, in batches: `batches` (n_batches + 1) are boundaries among the sequences.
    Answers answer(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                   const In<int64_t>& original, const In<int64_t>& batches, const OwnedExitRule& exits,
                   const OwnedTokenRule* tokens);

    // Runs whole inputs as one batch through layers 1 … last.
    Partial run(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                const In<int64_t>& original, const OwnedExitRule& exits, const OwnedTokenRule* tokens, int last);

    // Runs sequences through layers first … last, from the states before layer `first`; `history`: logits of active
    // rungs so far.
    Partial resume(const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                   const In<int64_t>& original, const In<float>& history, const OwnedExitRule& exits,
                   const OwnedTokenRule* tokens, int first, int last);

  private:
    struct Results;

    // Token and segment ids (n, 2) and positions (n) of a call: checked copies, because the caller's arrays may change.
    struct Tokens {
        std::vector<int64_t> ids, positions;
    };

    template <class Call>
    void with_rules(const Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                    const OwnedTokenRule* tokens, const Call& call);
    template <class Begin>
    Partial run_layers(Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                       const OwnedTokenRule* tokens, int first, int last, const Begin& begin);
    Survivors survivors(const Live& live) const;

    int width() const { return model_->spec.hidden; }
    void check_layer(int layer) const { refuse(layer < 1 || layer > model_->spec.layers, "layer: must be 1 … L"); }
    std::vector<int64_t> check_positions(const In<int64_t>& positions, int n) const;
    Tokens check_ids(const In<int64_t>& ids, const In<int64_t>& positions) const;
    void check_exits(const OwnedExitRule& rule, int n_seqs) const;
    void check_tokens(const OwnedTokenRule& rule) const;

    // What a call uses, one call at a time. A forked child gets a new one, see `forks`.
    struct CallState {
        std::mutex mutex;
        std::unique_ptr<Team> team;  // made by the first call, so that a process that forks before has no idle threads
        Workspace work;
        const unsigned process = forks();
    };

    CallState& call_state();

    template <class Call> void locked(const Call& call) {
        CallState& state = call_state();
        const WithoutGil released;
        const std::lock_guard<std::mutex> lock(state.mutex);
        if (!state.team) {
            state.team = std::make_unique<Team>(wanted_threads_);
            threads_ = state.team->size();
        }
        Pass pass(*model_, *state.team, state.work);
        call(pass);
    }

    std::unique_ptr<Model> model_;
    nb::list kept_alive_;  // embeddings, which the model reads without a copy
    int wanted_threads_;
    std::atomic<int> threads_;
    std::unique_ptr<CallState> call_state_ = std::make_unique<CallState>();
};

// Each adds a group of classes and functions to the module.
void bind_rules(nb::module_& module);
void bind_engine(nb::module_& module);
void bind_small(nb::module_& module);
void bind_kernels(nb::module_& module);

}  // namespace ziggurat
