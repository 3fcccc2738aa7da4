#include "adaptive.h"

#include <algorithm>
#include <cstring>

namespace ziggurat {

namespace {

// Which tokens stay, in order; `edges` and `positions` become those of the shorter sequences.
std::vector<int32_t> shorten(Live& live, const std::vector<uint8_t>& kept) {
    std::vector<int32_t> index;
    index.reserve(kept.size());
    Edges edges{0};
    for (int i = 0; i < count(live.edges); ++i) {
        for (int token = live.edges[i]; token < live.edges[i + 1]; ++token)
            if (kept[token]) index.push_back(token);
        edges.push_back(static_cast<int32_t>(index.size()));
    }
    for (size_t i = 0; i < index.size(); ++i) live.positions[i] = live.positions[index[i]];
    live.positions.resize(index.size());
    live.edges = std::move(edges);
    return index;
}

void note_lengths(const Live& live, int layer, int n_layers, const Outcomes& outcomes) {
    for (int i = 0; i < count(live.edges); ++i)
        outcomes.kept[static_cast<int64_t>(live.sequences[i]) * (n_layers + 1) + layer] =
            live.edges[i + 1] - live.edges[i];
}

// Which tokens a layer leaves, from the scores of those that entered it.
std::vector<uint8_t> staying(const Live& live, int layer, const float* scores, const Rules& rules) {
    std::vector<uint8_t> kept(live.edges.back());
    for (int i = 0; i < count(live.edges); ++i) {
        const int first = live.edges[i];
        rules.tokens.stays(layer, scores + first, live.edges[i + 1] - first, rules.original[live.sequences[i]],
                           &kept[first]);
    }
    return kept;
}

// One layer, pruned or not.
void run_layer(Pass& pass, Live& live, int layer, const Rules& rules) {
    Workspace& work = pass.workspace();
    const int n = live.edges.back(), d = pass.model().spec.hidden;
    work.context.reserve(sizeof(float) * d * n);
    const auto* states = live.states.as<float>();
    auto* context = work.context.as<float>();
    const int64_t* positions = live.positions.data();
    std::vector<int32_t> index;
    const bool prunes = rules.tokens.prunes(layer);
    if (prunes) {
        work.scores.reserve(sizeof(float) * n);
        auto* scores = work.scores.as<float>();
        const bool predicted = rules.tokens.score == TokenScore::predicted;
        if (predicted) pass.guess(layer, states, live.edges, scores);
        pass.context(layer, states, positions, live.edges, context, predicted ? nullptr : scores,
                     rules.tokens.score == TokenScore::received_from_others);
        index = shorten(live, staying(live, layer, scores, rules));
    } else {
        pass.context(layer, states, positions, live.edges, context, nullptr, false);
    }
    const int left = live.edges.back();
    const int32_t* which = prunes ? index.data() : nullptr;
    work.states.reserve(sizeof(float) * d * left);
    pass.finish(layer, {states, d, which, left}, {context, d, which, left}, work.states.as<float>());
    std::swap(live.states, work.states);
}

// The last layer of a model where nobody reads more than the first token of each sequence.
void run_last(Pass& pass, Live& live) {
    Workspace& work = pass.workspace();
    const int layer = pass.model().spec.layers, n = count(live.edges), d = pass.model().spec.hidden;
    work.context.reserve(sizeof(float) * d * n);
    auto* context = work.context.as<float>();
    pass.first_context(layer, live.states.as<float>(), live.positions.data(), live.edges, context);
    work.states.reserve(sizeof(float) * d * n);
    pass.finish(layer, {live.states.as<float>(), d, live.edges.data(), n}, {context, d, nullptr, n},
                work.states.as<float>());
    std::swap(live.states, work.states);
    for (int i = 0; i <= n; ++i) live.edges[i] = i;
}

// Takes the sequences that leave out of `live`; the others move up.
void drop(Live& live, const std::vector<uint8_t>& leaves, int d) {
    auto* states = live.states.as<float>();
    Edges edges{0};
    std::vector<int32_t> sequences;
    for (int i = 0; i < count(live.edges); ++i) {
        if (leaves[i]) continue;
        const int from = live.edges[i], to = edges.back(), n = live.edges[i + 1] - from;
        std::memmove(states + static_cast<ptrdiff_t>(d) * to, states + static_cast<ptrdiff_t>(d) * from,
                     sizeof(float) * d * n);
        std::copy_n(live.positions.begin() + from, n, live.positions.begin() + to);
        edges.push_back(to + n);
        sequences.push_back(live.sequences[i]);
    }
    live.positions.resize(edges.back());
    live.edges = std::move(edges);
    live.sequences = std::move(sequences);
}

// Asks a rung; who is sure enough gets its answer and leaves.
void ask(Pass& pass, Live& live, int rung, const std::vector<int>& heard, const Rules& rules, const Outcomes& outcomes,
         std::chrono::steady_clock::time_point begun) {
    const Model& model = pass.model();
    const int n = count(live.edges), n_classes = model.n_classes, n_heard = static_cast<int>(heard.size());
    pass.workspace().scores.reserve(sizeof(float) * n * n_classes);
    auto* said = pass.workspace().scores.as<float>();
    pass.logits(rung, live.states.as<float>(), live.edges, said);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    std::vector<uint8_t> leaves(n);
    for (int i = 0; i < n; ++i) {
        const int64_t row = live.sequences[i];
        float* history = outcomes.history + row * rules.exits.n_rungs * n_classes;
        std::copy_n(said + static_cast<ptrdiff_t>(n_classes) * i, n_classes, history + (n_heard - 1) * n_classes);
        leaves[i] = rules.exits.leaves(row, rung, history, heard, n_classes);
        if (!leaves[i]) continue;
        std::copy_n(said + static_cast<ptrdiff_t>(n_classes) * i, n_classes, outcomes.logits + row * n_classes);
        outcomes.rungs[row] = rung;
        outcomes.seconds[row] = seconds;
    }
    if (std::find(leaves.begin(), leaves.end(), 1) != leaves.end()) drop(live, leaves, model.spec.hidden);
}

}  // namespace

Live start(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, const Rules& rules,
           const Outcomes& outcomes) {
    Live live{{}, edges, {positions, positions + edges.back()}, {}};
    for (int i = 0; i < count(edges); ++i) live.sequences.push_back(i);
    std::vector<int64_t> read;
    if (rules.tokens.keep != Keep::all && rules.tokens.vocabulary) {
        std::vector<uint8_t> kept(edges.back());
        for (int token = 0; token < edges.back(); ++token) kept[token] = rules.tokens.vocabulary[ids[2 * token]];
        for (int i = 0; i < count(edges); ++i) kept[edges[i]] = 1;
        for (const int32_t token : shorten(live, kept)) read.insert(read.end(), {ids[2 * token], ids[2 * token + 1]});
        ids = read.data();
    }
    const int n = live.edges.back();
    live.states.reserve(sizeof(float) * pass.model().spec.hidden * n);
    pass.embed(ids, live.positions.data(), n, live.states.as<float>());
    note_lengths(live, 0, pass.model().spec.layers, outcomes);
    return live;
}

void advance(Pass& pass, Live& live, int first, int last, const Rules& rules, const Outcomes& outcomes,
             std::chrono::steady_clock::time_point begun) {
    const Model& model = pass.model();
    std::vector<int> heard;
    for (size_t rung = 0; rung < model.rung_layers.size() && model.rung_layers[rung] < first; ++rung)
        if (rules.exits.asked(static_cast<int>(rung))) heard.push_back(static_cast<int>(rung));
    for (int layer = first; layer <= last && count(live.edges); ++layer) {
        if (layer == model.spec.layers && !rules.tokens.prunes(layer) && !model.spec.mean_pooling) {
            note_lengths(live, layer, model.spec.layers, outcomes);
            run_last(pass, live);
        } else {
            run_layer(pass, live, layer, rules);
            note_lengths(live, layer, model.spec.layers, outcomes);
        }
        const auto found = std::find(model.rung_layers.begin(), model.rung_layers.end(), layer);
        const int rung = static_cast<int>(found - model.rung_layers.begin());
        if (found == model.rung_layers.end() || !rules.exits.asked(rung)) continue;
        heard.push_back(rung);
        ask(pass, live, rung, heard, rules, outcomes, begun);
    }
}

}  // namespace ziggurat
