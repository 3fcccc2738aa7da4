// Whole inputs through layers and exits: `Engine.answer`, `Engine.run` and `Engine.resume`.
#include <algorithm>
#include <chrono>
#include <limits>

#include "batches.h"
#include "bind_engine.h"

namespace ziggurat {

// The arrays that a call answers with.
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

template <class Go>
void Engine::travel(const Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                    const OwnedTokenRule* tokens, const Go& go) {
    const int n = static_cast<int>(results.rungs.shape(0));
    check_length(original, n, "original");
    check_exits(exits, n);
    if (tokens) check_tokens(*tokens);
    const Rules rules{tokens ? tokens->view() : TokenRule{}, exits.view(), original.data()};
    locked([&](Pass& pass) { go(pass, rules); });
}

template <class Begin>
nb::tuple Engine::part_of_the_way(Results& results, const In<int64_t>& original, const OwnedExitRule& exits,
                                  const OwnedTokenRule* tokens, int first, int last, const Begin& begin) {
    const auto begun = std::chrono::steady_clock::now();
    refuse(first < 1 || last < first || last > model_->spec.layers, "layers: must be 1 <= first <= last <= L");
    Live live;
    travel(results, original, exits, tokens, [&](Pass& pass, const Rules& rules) {
        live = begin(pass, rules);
        advance(pass, live, first, last, rules, results.view(), begun);
    });
    return nb::make_tuple(results.logits, results.rungs, results.seconds, results.kept, results.history, left(live));
}

// Sequences that are still on their way: states, positions, cu_seqlens, which input each is.
nb::tuple Engine::left(const Live& live) const {
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

nb::tuple Engine::run(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                      const In<int64_t>& original, const OwnedExitRule& exits, const OwnedTokenRule* tokens, int last) {
    const Tokens read = check_ids(ids, positions);
    const Edges edges = edges_of(cu_seqlens, static_cast<int>(read.positions.size()));
    Results results(*this, count(edges));
    return part_of_the_way(results, original, exits, tokens, 1, last, [&](Pass& pass, const Rules& rules) {
        return start(pass, read.ids.data(), read.positions.data(), edges, 0, rules, results.view());
    });
}

nb::tuple Engine::answer(const In<int64_t>& ids, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                         const In<int64_t>& original, const In<int64_t>& batches, const OwnedExitRule& exits,
                         const OwnedTokenRule* tokens) {
    const Tokens read = check_ids(ids, positions);
    const Edges edges = edges_of(cu_seqlens, static_cast<int>(read.positions.size()));
    const Edges of_batches = edges_of(batches, count(edges), "batches", "sequence");
    Results results(*this, count(edges));
    travel(results, original, exits, tokens, [&](Pass& pass, const Rules& rules) {
        answer_batches(pass, read.ids.data(), read.positions.data(), edges, of_batches, rules, results.view());
    });
    return nb::make_tuple(results.logits, results.rungs, results.seconds, results.kept);
}

nb::tuple Engine::resume(const In<float>& states, const In<int64_t>& positions, const In<int64_t>& cu_seqlens,
                         const In<int64_t>& original, const In<float>& history, const OwnedExitRule& exits,
                         const OwnedTokenRule* tokens, int first, int last) {
    const int n = matrix_rows(states, width(), "states");
    const Edges edges = edges_of(cu_seqlens, n);
    const std::vector<int64_t> places = check_positions(positions, n);
    Results results(*this, count(edges));
    refuse(history.size() != results.history.size(), "history: must be (n_seqs, n_rungs, n_classes)");
    std::copy_n(history.data(), history.size(), results.history.data());
    return part_of_the_way(results, original, exits, tokens, first, last, [&](Pass&, const Rules&) {
        Live live{Buffer(states.size() * sizeof(float)), edges, places, {}};
        std::copy_n(states.data(), states.size(), live.states.as<float>());
        for (int i = 0; i < count(edges); ++i) live.sequences.push_back(i);
        return live;
    });
}

}  // namespace ziggurat
