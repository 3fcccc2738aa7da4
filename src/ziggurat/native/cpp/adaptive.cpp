#include "adaptive.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace ziggurat {

namespace {

constexpr int CHUNK = 384;  // tokens

// Some of the sequences on their way, whose queries, keys and values the caches hold at once.
struct Chunk {
    int first, end;  // sequences
    int token;       // where the first of them begins
    Edges edges;     // of these alone, from 0
};

// Calls `run` for chunks of whole sequences that make up all of `edges`.
template <class Run> void in_chunks(const Edges& edges, const Run& run) {
    for (int first = 0, end; first < count(edges); first = end) {
        Chunk chunk{first, 0, edges[first], {0}};
        for (end = first; end < count(edges) && (end == first || edges[end + 1] - chunk.token <= CHUNK); ++end)
            chunk.edges.push_back(edges[end + 1] - chunk.token);
        chunk.end = end;
        run(chunk);
    }
}

// Which tokens stay, in order, with their places in the chunk; `edges` and `positions` are those of the sequences before and
// get the shorter ones behind.
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

int64_t& kept_of(const Live& live, int i, int layer, int n_layers, const Outcomes& outcomes) {
    return outcomes.kept[static_cast<int64_t>(live.sequences[i]) * (n_layers + 1) + layer];
}

void note_lengths(const Live& live, int layer, int n_layers, const Outcomes& outcomes) {
    for (int i = 0; i < count(live.edges); ++i)
        kept_of(live, i, layer, n_layers, outcomes) = live.edges[i + 1] - live.edges[i];
}

// Which tokens a layer leaves, from the scores of those that entered it.
std::vector<uint8_t> staying(const Live& live, const Chunk& chunk, int layer, const float* scores, const Rules& rules) {
    std::vector<uint8_t> kept(chunk.edges.back());
    for (int i = chunk.first; i < chunk.end; ++i) {
        const int first = live.edges[i] - chunk.token, n = live.edges[i + 1] - live.edges[i];
        rules.tokens.stays(layer, scores + first, n, rules.original[live.sequences[i]], &kept[first]);
    }
    return kept;
}

// Scores and context of a chunk at a layer that prunes; of first tokens alone, as `context` (n_seqs, d), for a last layer.
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
        const int n = chunk.edges.back(), done = prunes ? edges.back() : chunk.token;
        work.context.reserve(sizeof(float) * d * n);
        const float* states = live.states.as<float>() + d * chunk.token;
        auto* context = work.context.as<float>();
        float* out = work.states.as<float>() + d * done;
        const int64_t* places = live.positions.data() + chunk.token;
        if (!prunes) {
            pass.context(layer, states, places, chunk.edges, context, nullptr, false);
            pass.finish(layer, {states, d, nullptr, n}, {context, d, nullptr, n}, out);
            return;
        }
        work.scores.reserve(sizeof(float) * n);
        auto* scores = work.scores.as<float>();
        score(pass, layer, states, places, chunk.edges, context, scores, rules.tokens.score, false);
        const auto index = shorten(chunk.edges, staying(live, chunk, layer, scores, rules), places, edges, positions);
        const int left = static_cast<int>(index.size());
        pass.finish(layer, {states, d, index.data(), left}, {context, d, index.data(), left}, out);
    });
    if (prunes) {
        live.edges = std::move(edges);
        live.positions = std::move(positions);
    }
    std::swap(live.states, work.states);
}

// The last layer of a model where nobody reads more than the first token of each sequence. What a rule would prune is
// counted, and changes no answer.
void run_last(Pass& pass, Live& live, const Rules& rules, const Outcomes& outcomes) {
    Workspace& work = pass.workspace();
    const int layer = pass.model().spec.layers, n = count(live.edges);
    const ptrdiff_t d = pass.model().spec.hidden;
    note_lengths(live, layer, layer, outcomes);
    work.context.reserve(sizeof(float) * d * n);
    auto* context = work.context.as<float>();
    in_chunks(live.edges, [&](const Chunk& chunk) {
        const float* states = live.states.as<float>() + d * chunk.token;
        const int64_t* positions = live.positions.data() + chunk.token;
        float* to = context + d * chunk.first;
        if (!rules.tokens.prunes(layer))
            return pass.first_context(layer, states, positions, chunk.edges, to, nullptr, false);
        work.scores.reserve(sizeof(float) * chunk.edges.back());
        auto* scores = work.scores.as<float>();
        score(pass, layer, states, positions, chunk.edges, to, scores, rules.tokens.score, true);
        const auto kept = staying(live, chunk, layer, scores, rules);
        for (int i = chunk.first; i < chunk.end; ++i) {
            const auto begin = kept.begin() + live.edges[i] - chunk.token;
            kept_of(live, i, layer, layer, outcomes) = std::count(begin, begin + live.edges[i + 1] - live.edges[i], 1);
        }
    });
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
        std::copy_n(said + static_cast<ptrdiff_t>(n_classes) * i, n_classes,
                    history + static_cast<ptrdiff_t>(n_heard - 1) * n_classes);
        leaves[i] = rules.exits.leaves(row, rung, history, heard, n_classes);
        if (!leaves[i]) continue;
        std::copy_n(said + static_cast<ptrdiff_t>(n_classes) * i, n_classes, outcomes.logits + row * n_classes);
        outcomes.rungs[row] = rung;
        outcomes.seconds[row] = seconds;
    }
    if (std::find(leaves.begin(), leaves.end(), 1) != leaves.end()) drop(live, leaves, model.spec.hidden);
}

}  // namespace

Live start(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, int first, const Rules& rules,
           const Outcomes& outcomes) {
    Live live{pass.workspace().take(), edges, {positions, positions + edges.back()}, {}};
    for (int i = 0; i < count(edges); ++i) live.sequences.push_back(first + i);
    std::vector<int64_t> read;
    if (rules.tokens.keep != Keep::all && rules.tokens.vocabulary) {
        std::vector<uint8_t> kept(edges.back());
        for (int token = 0; token < edges.back(); ++token) kept[token] = rules.tokens.vocabulary[ids[2 * token]];
        for (int i = 0; i < count(edges); ++i) kept[edges[i]] = 1;
        live.edges = {0};
        live.positions.clear();
        for (const int32_t token : shorten(edges, kept, positions, live.edges, live.positions))
            read.insert(read.end(), {ids[2 * token], ids[2 * token + 1]});
        ids = read.data();
    }
    const int n = live.edges.back();
    live.states.reserve(sizeof(float) * pass.model().spec.hidden * n);
    pass.embed(ids, live.positions.data(), n, live.states.as<float>());
    note_lengths(live, 0, pass.model().spec.layers, outcomes);
    return live;
}

void step(Pass& pass, Live& live, int layer, const Rules& rules, const Outcomes& outcomes,
          std::chrono::steady_clock::time_point begun) {
    const Model& model = pass.model();
    if (layer == model.spec.layers && !model.spec.mean_pooling) {
        run_last(pass, live, rules, outcomes);
    } else {
        run_layer(pass, live, layer, rules);
        note_lengths(live, layer, model.spec.layers, outcomes);
    }
    std::vector<int> heard;
    for (size_t rung = 0; rung < model.rung_layers.size() && model.rung_layers[rung] <= layer; ++rung)
        if (rules.exits.asked(static_cast<int>(rung))) heard.push_back(static_cast<int>(rung));
    if (!heard.empty() && model.rung_layers[heard.back()] == layer)
        ask(pass, live, heard.back(), heard, rules, outcomes, begun);
}

void advance(Pass& pass, Live& live, int first, int last, const Rules& rules, const Outcomes& outcomes,
             std::chrono::steady_clock::time_point begun) {
    for (int layer = first; layer <= last && count(live.edges); ++layer)
        step(pass, live, layer, rules, outcomes, begun);
    if (!count(live.edges)) pass.workspace().give_back(std::move(live.states));
}

}  // namespace ziggurat
