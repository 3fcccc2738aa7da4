#include "engine/adaptive.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ziggurat {

namespace {

constexpr int CHUNK = 384;  // tokens

// Some of the live sequences: few enough for the caches to hold their queries, keys and values.
struct Chunk {
    int first, end;  // sequences
    int token;       // first row of the first of them
    Edges edges;     // of the sequences of the chunk, from 0
};

// Divides the sequences into chunks and calls `run` for each.
template <class Run> void in_chunks(const Edges& edges, const Run& run) {
    for (int first = 0, end; first < count(edges); first = end) {
        Chunk chunk{first, 0, edges[first], {0}};
        for (end = first; end < count(edges) && (end == first || edges[end + 1] - chunk.token <= CHUNK); ++end)
            chunk.edges.push_back(edges[end + 1] - chunk.token);
        chunk.end = end;
        run(chunk);
    }
}

// The rows of the kept tokens of a chunk, in order. Appends the shortened sequences to `edges` and `positions`.
std::vector<int32_t> shorten(const Edges& chunk, const std::vector<uint8_t>& kept, const int64_t* from, Edges& edges,
                             std::vector<int64_t>& positions) {
    std::vector<int32_t> index;
    index.reserve(kept.size());
    for (int i = 0; i < count(chunk); ++i) {
        for (int token = chunk[i]; token < chunk[i + 1]; ++token) {
            if (!kept[token]) continue;
            index.push_back(token);
            positions.push_back(from[token]);
        }
        edges.push_back(static_cast<int32_t>(positions.size()));
    }
    return index;
}

int64_t& kept_entry(const Live& live, int i, int layer, int n_layers, const Outcomes& outcomes) {
    return outcomes.kept[static_cast<int64_t>(live.sequences[i]) * (n_layers + 1) + layer];
}

void record_lengths(const Live& live, int layer, int n_layers, const Outcomes& outcomes) {
    for (int i = 0; i < count(live.edges); ++i)
        kept_entry(live, i, layer, n_layers, outcomes) = live.edges[i + 1] - live.edges[i];
}

// Which tokens of a chunk a layer keeps, from the scores of those that entered it.
std::vector<uint8_t> kept_tokens(const Live& live, const Chunk& chunk, int layer, const float* scores,
                                 const Rules& rules) {
    std::vector<uint8_t> kept(chunk.edges.back());
    for (int i = chunk.first; i < chunk.end; ++i) {
        const int first = live.edges[i] - chunk.token, n = live.edges[i + 1] - live.edges[i];
        rules.tokens.keep_tokens(layer, scores + first, n, rules.original[live.sequences[i]], &kept[first]);
    }
    return kept;
}

// Token scores and context of a chunk at a layer that prunes. `first`: context of only the first tokens, (n_seqs, d).
void score(Pass& pass, int layer, const float* states, const int64_t* positions, const Edges& edges, float* context,
           float* scores, TokenScore kind, bool first) {
    const bool predicted = kind == TokenScore::predicted, from_others = kind == TokenScore::received_from_others;
    if (predicted) pass.guess(layer, states, edges, scores);
    float* received = predicted ? nullptr : scores;
    if (first)
        pass.first_context(layer, states, positions, edges, context, received, from_others);
    else
        pass.context(layer, states, positions, edges, context, received, from_others);
}

// One layer, pruned or not.
void run_layer(Pass& pass, Live& live, int layer, const Rules& rules) {
    Workspace& work = pass.workspace();
    const ptrdiff_t d = pass.model().spec.hidden;
    const bool prunes = rules.tokens.prunes(layer);
    work.states.reserve(sizeof(float) * d * live.edges.back());
    Edges edges{0};
    std::vector<int64_t> positions;
    if (prunes) positions.reserve(live.positions.size());
    in_chunks(live.edges, [&](const Chunk& chunk) {
        const int n = chunk.edges.back(), start_row = prunes ? edges.back() : chunk.token;
        work.context.reserve(sizeof(float) * d * n);
        const float* states = live.states.as<float>() + d * chunk.token;
        auto* context = work.context.as<float>();
        float* out = work.states.as<float>() + d * start_row;
        const int64_t* chunk_positions = live.positions.data() + chunk.token;
        if (!prunes) {
            pass.context(layer, states, chunk_positions, chunk.edges, context, nullptr, false);
            pass.finish(layer, {states, d, nullptr, n}, {context, d, nullptr, n}, out);
            return;
        }
        work.scores.reserve(sizeof(float) * n);
        auto* scores = work.scores.as<float>();
        score(pass, layer, states, chunk_positions, chunk.edges, context, scores, rules.tokens.score, false);
        const auto index =
            shorten(chunk.edges, kept_tokens(live, chunk, layer, scores, rules), chunk_positions, edges, positions);
        const int n_kept = static_cast<int>(index.size());
        pass.finish(layer, {states, d, index.data(), n_kept}, {context, d, index.data(), n_kept}, out);
    });
    if (prunes) {
        live.edges = std::move(edges);
        live.positions = std::move(positions);
    }
    std::swap(live.states, work.states);
}

// The last layer of a model whose classifier reads only the first token of each sequence: nothing else is computed.
// What a rule would prune is counted; it cannot change the logits.
void run_last(Pass& pass, Live& live, const Rules& rules, const Outcomes& outcomes) {
    Workspace& work = pass.workspace();
    const int layer = pass.model().spec.layers, n = count(live.edges);
    const ptrdiff_t d = pass.model().spec.hidden;
    record_lengths(live, layer, layer, outcomes);
    work.context.reserve(sizeof(float) * d * n);
    auto* context = work.context.as<float>();
    in_chunks(live.edges, [&](const Chunk& chunk) {
        const float* states = live.states.as<float>() + d * chunk.token;
        const int64_t* positions = live.positions.data() + chunk.token;
        float* target = context + d * chunk.first;
        if (!rules.tokens.prunes(layer))
            return pass.first_context(layer, states, positions, chunk.edges, target, nullptr, false);
        work.scores.reserve(sizeof(float) * chunk.edges.back());
        auto* scores = work.scores.as<float>();
        score(pass, layer, states, positions, chunk.edges, target, scores, rules.tokens.score, true);
        const auto kept = kept_tokens(live, chunk, layer, scores, rules);
        for (int i = chunk.first; i < chunk.end; ++i) {
            const auto begin = kept.begin() + live.edges[i] - chunk.token;
            kept_entry(live, i, layer, layer, outcomes) =
                std::count(begin, begin + live.edges[i + 1] - live.edges[i], 1);
        }
    });
    work.states.reserve(sizeof(float) * d * n);
    pass.finish(layer, {live.states.as<float>(), d, live.edges.data(), n}, {context, d, nullptr, n},
                work.states.as<float>());
    std::swap(live.states, work.states);
    for (int i = 0; i <= n; ++i) live.edges[i] = i;
}

// Removes the sequences that exit from `live`; the others move up.
void remove_exited(Live& live, const std::vector<uint8_t>& exits, int d) {
    auto* states = live.states.as<float>();
    Edges edges{0};
    std::vector<int32_t> sequences;
    for (int i = 0; i < count(live.edges); ++i) {
        if (exits[i]) continue;
        const int from = live.edges[i], target = edges.back(), n = live.edges[i + 1] - from;
        std::memmove(states + static_cast<ptrdiff_t>(d) * target, states + static_cast<ptrdiff_t>(d) * from,
                     sizeof(float) * d * n);
        std::copy_n(live.positions.begin() + from, n, live.positions.begin() + target);
        edges.push_back(target + n);
        sequences.push_back(live.sequences[i]);
    }
    live.positions.resize(edges.back());
    live.edges = std::move(edges);
    live.sequences = std::move(sequences);
}

// Runs the head of a rung. Sequences that the rule lets exit get their results and are removed.
void run_rung(Pass& pass, Live& live, int rung, const std::vector<int>& active_rungs, const Rules& rules,
              const Outcomes& outcomes, std::chrono::steady_clock::time_point started) {
    const Model& model = pass.model();
    const int n = count(live.edges), n_classes = model.n_classes, n_active = static_cast<int>(active_rungs.size());
    pass.workspace().scores.reserve(sizeof(float) * n * n_classes);
    auto* logits = pass.workspace().scores.as<float>();
    pass.logits(rung, live.states.as<float>(), live.edges, logits);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    std::vector<uint8_t> exits(n);
    for (int i = 0; i < n; ++i) {
        const int64_t row = live.sequences[i];
        float* history = outcomes.history + row * rules.exits.n_rungs * n_classes;
        std::copy_n(logits + static_cast<ptrdiff_t>(n_classes) * i, n_classes,
                    history + static_cast<ptrdiff_t>(n_active - 1) * n_classes);
        exits[i] = rules.exits.exits(row, rung, history, active_rungs, n_classes);
        if (!exits[i]) continue;
        std::copy_n(logits + static_cast<ptrdiff_t>(n_classes) * i, n_classes, outcomes.logits + row * n_classes);
        outcomes.rungs[row] = rung;
        outcomes.seconds[row] = seconds;
    }
    if (std::find(exits.begin(), exits.end(), 1) != exits.end()) remove_exited(live, exits, model.spec.hidden);
}

}  // namespace

Live start(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, int first, const Rules& rules,
           const Outcomes& outcomes) {
    Live live{pass.workspace().take(), edges, {positions, positions + edges.back()}, {}};
    for (int i = 0; i < count(edges); ++i) live.sequences.push_back(first + i);
    std::vector<int64_t> read_ids;
    if (rules.tokens.keep != Keep::all && rules.tokens.vocabulary) {
        std::vector<uint8_t> kept(edges.back());
        for (int token = 0; token < edges.back(); ++token) kept[token] = rules.tokens.vocabulary[ids[2 * token]];
        for (int i = 0; i < count(edges); ++i) kept[edges[i]] = 1;
        live.edges = {0};
        live.positions.clear();
        for (const int32_t token : shorten(edges, kept, positions, live.edges, live.positions))
            read_ids.insert(read_ids.end(), {ids[2 * token], ids[2 * token + 1]});
        ids = read_ids.data();
    }
    const int n = live.edges.back();
    live.states.reserve(sizeof(float) * pass.model().spec.hidden * n);
    pass.embed(ids, live.positions.data(), n, live.states.as<float>());
    record_lengths(live, 0, pass.model().spec.layers, outcomes);
    return live;
}

void step(Pass& pass, Live& live, int layer, const Rules& rules, const Outcomes& outcomes,
          std::chrono::steady_clock::time_point started) {
    const Model& model = pass.model();
    if (layer == model.spec.layers && !model.spec.mean_pooling) {
        run_last(pass, live, rules, outcomes);
    } else {
        run_layer(pass, live, layer, rules);
        record_lengths(live, layer, model.spec.layers, outcomes);
    }
    std::vector<int> active_rungs;
    for (size_t rung = 0; rung < model.rung_layers.size() && model.rung_layers[rung] <= layer; ++rung)
        if (rules.exits.active(static_cast<int>(rung))) active_rungs.push_back(static_cast<int>(rung));
    if (!active_rungs.empty() && model.rung_layers[active_rungs.back()] == layer)
        run_rung(pass, live, active_rungs.back(), active_rungs, rules, outcomes, started);
}

void advance(Pass& pass, Live& live, int first, int last, const Rules& rules, const Outcomes& outcomes,
             std::chrono::steady_clock::time_point started) {
    for (int layer = first; layer <= last && count(live.edges); ++layer)
        step(pass, live, layer, rules, outcomes, started);
    if (!count(live.edges)) pass.workspace().give_back(std::move(live.states));
}

}  // namespace ziggurat
