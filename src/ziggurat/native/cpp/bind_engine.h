// The class `Engine` as Python has it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "adaptive.h"
#include "arrays.h"
#include "bind_rules.h"
#include "process.h"

namespace ziggurat {

// A model, its threads and its memory. Calls from several Python threads wait for each other.
class Engine {
  public:
    Engine(const nb::dict& spec, const nb::dict& tensors, const std::vector<int>& head_layers, const std::string& dtype,
           int threads, const std::string& instructions);
    ~Engine();

    const char* instructions() const { return model_->kernels->name; }
    // That compute; of an engine that has not begun, that are asked for.
    int threads() const { return threads_; }
    int n_classes() const { return model_->n_classes; }
    std::vector<int> rung_layers() const { return model_->rung_layers; }
    size_t workspace_bytes();

    // One step at a time.
    Out<float> embed(const In<int64_t>& ids, const In<int64_t>& positions);
    nb::tuple context(int layer, const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                      bool scored, bool from_others);
    Out<float> finish(int layer, const In<float>& states, const In<float>& context);
    Out<float> guess(int layer, const In<float>& states, const In<int64_t>& cu_seqlens);
    Out<float> logits(int rung, const In<float>& states, const In<int64_t>& cu_seqlens);

    // Whole inputs from their ids to their answers, in batches: edges (n_batches + 1) among the sequences.
    nb::tuple answer(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                     const In<int64_t>& original, const In<int64_t>& batches, const OwnedExitRule& exits,
                     const OwnedTokenRule* tokens);

    // The same as one batch through layers 1 … last.
    nb::tuple run(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                  const In<int64_t>& original, const OwnedExitRule& exits, const OwnedTokenRule* tokens, int last);

    // Sequences that stand before layer `first` through layers first … last; `history` is what asked rungs have said.
    nb::tuple resume(const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                     const In<int64_t>& original, const In<float>& history, const OwnedExitRule& exits,
                     const OwnedTokenRule* tokens, int first, int last);

  private:
    struct Results;

    // A call's token and segment ids (n, 2) and their positions (n): checked copies, for the caller's arrays may change.
    struct Tokens {
        std::vector<int64_t> ids, positions;
    };

    template <class Go>
    void travel(const Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                const OwnedTokenRule* tokens, const Go& go);
    template <class Begin>
    nb::tuple part_of_the_way(Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                              const OwnedTokenRule* tokens, int first, int last, const Begin& begin);
    nb::tuple left(const Live& live) const;

    int width() const { return model_->spec.hidden; }
    void check_layer(int layer) const { refuse(layer < 1 || layer > model_->spec.layers, "layer: must be 1 … L"); }
    std::vector<int64_t> check_positions(const In<int64_t>& positions, int n) const;
    Tokens check_ids(const In<int64_t>& ids, const In<int64_t>& positions) const;
    void check_exits(const OwnedExitRule& rule, int n_seqs) const;
    void check_tokens(const OwnedTokenRule& rule) const;

    // What calls use, one at a time. A forked child has another one, see `forks`.
    struct Shared {
        std::mutex mutex;
        std::unique_ptr<Team> team;  // starts with the first call, so that who forks before has no idle threads
        Workspace work;
        const unsigned process = forks();
    };

    Shared& shared();

    template <class Call> void locked(const Call& call) {
        Shared& mine = shared();
        const WithoutGil others_run;
        const std::lock_guard<std::mutex> lock(mine.mutex);
        if (!mine.team) {
            mine.team = std::make_unique<Team>(wanted_threads_);
            threads_ = mine.team->size();
        }
        Pass pass(*model_, *mine.team, mine.work);
        call(pass);
    }

    std::unique_ptr<Model> model_;
    nb::list kept_alive_;  // embeddings, which the model reads where they are
    int wanted_threads_;
    std::atomic<int> threads_;
    std::unique_ptr<Shared> shared_ = std::make_unique<Shared>();
};

// Adds the class.
void bind_engine(nb::module_& module);

}  // namespace ziggurat
