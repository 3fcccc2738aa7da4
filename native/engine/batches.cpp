#include "engine/adaptive.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

namespace ziggurat {

namespace {

using Clock = std::chrono::steady_clock;

// The sequences that wait for later batches, per layer.
class Leftovers {
  public:
    Leftovers(Pass& pass, const Rules& rules, const Outcomes& outcomes, Clock::time_point started)
        : pass_(pass), rules_(rules), outcomes_(outcomes), started_(started), waiting_(pass.model().spec.layers + 1) {
        for (Live& live : waiting_) live.edges = {0};
    }

    // Starts a batch at layer 1. `more`: further batches will follow.
    void start_batch(Live live, bool more) {
        largest_ = std::max(largest_, live.edges.back());
        run(std::move(live), 1, more);
    }

    // Runs all that wait until they exit.
    void flush() {
        for (int layer = 1; layer <= pass_.model().spec.layers; ++layer)
            if (count(waiting_[layer].edges)) run(take(layer), layer, false);
        for (Live& live : waiting_) pass_.workspace().give_back(std::move(live.states));
    }

  private:
    // Runs sequences from `layer` on until they exit or are queued.
    void run(Live live, int layer, bool more) {
        for (; count(live.edges) && layer <= pass_.model().spec.layers; ++layer) {
            if (layer > 1 && !merge_or_wait(live, layer, more)) break;
            step(pass_, live, layer, rules_, outcomes_, started_);
        }
        pass_.workspace().give_back(std::move(live.states));
    }

    // Whether `live`, perhaps merged with sequences that waited, shall run this layer now. Otherwise moves it to the
    // queue.
    bool merge_or_wait(Live& live, int layer, bool more) {
        Live& queue = waiting_[layer];
        const int n = live.edges.back(), n_waiting = queue.edges.back();
        if (more ? 2 * n > largest_ : n_waiting == 0) return true;
        if (n + n_waiting > largest_) run(take(layer), layer, more);
        append(queue, live);
        if (!more) std::swap(queue, live);
        return !more;
    }

    Live take(int layer) {
        Live live{{}, {0}, {}, {}};
        std::swap(live, waiting_[layer]);
        return live;
    }

    // Moves the sequences of `live` to the end of the queue.
    void append(Live& queue, Live& live) {
        const size_t row = sizeof(float) * pass_.model().spec.hidden;
        const int n_waiting = queue.edges.back();
        if (queue.states.bytes() < row * largest_) {
            Buffer larger = pass_.workspace().take();
            larger.reserve(row * largest_);
            if (n_waiting) std::memcpy(larger.as<std::byte>(), queue.states.as<std::byte>(), row * n_waiting);
            std::swap(queue.states, larger);
            pass_.workspace().give_back(std::move(larger));
        }
        std::memcpy(queue.states.as<std::byte>() + row * n_waiting, live.states.as<std::byte>(),
                    row * live.edges.back());
        queue.positions.insert(queue.positions.end(), live.positions.begin(), live.positions.end());
        queue.sequences.insert(queue.sequences.end(), live.sequences.begin(), live.sequences.end());
        for (size_t i = 1; i < live.edges.size(); ++i) queue.edges.push_back(n_waiting + live.edges[i]);
        live.edges = {0};
        live.positions.clear();
        live.sequences.clear();
    }

    Pass& pass_;
    const Rules& rules_;
    const Outcomes& outcomes_;
    const Clock::time_point started_;
    int largest_ = 0;            // tokens of the largest batch so far
    std::vector<Live> waiting_;  // [layer], 1 … L
};

}  // namespace

void answer_batches(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, const Edges& batches,
                    const Rules& rules, const Outcomes& outcomes) {
    const auto started = Clock::now();
    Leftovers leftovers(pass, rules, outcomes, started);
    std::vector<double> start_seconds;
    for (int i = 0; i < count(batches); ++i) {
        start_seconds.push_back(std::chrono::duration<double>(Clock::now() - started).count());
        const int first = batches[i], token = edges[first];
        Edges batch_edges;
        for (int j = first; j <= batches[i + 1]; ++j) batch_edges.push_back(edges[j] - token);
        Live live = start(pass, ids + 2 * static_cast<ptrdiff_t>(token), positions + token, batch_edges, first, rules,
                          outcomes);
        leftovers.start_batch(std::move(live), i + 1 < count(batches));
    }
    leftovers.flush();
    for (int i = 0; i < count(batches); ++i)
        for (int j = batches[i]; j < batches[i + 1]; ++j) outcomes.seconds[j] -= start_seconds[i];
}

}  // namespace ziggurat
