#include "batches.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

namespace ziggurat {

namespace {

using Clock = std::chrono::steady_clock;

// Those who wait, before each layer.
class Queues {
  public:
    Queues(Pass& pass, const Rules& rules, const Outcomes& outcomes, Clock::time_point begun)
        : pass_(pass), rules_(rules), outcomes_(outcomes), begun_(begun), waiting_(pass.model().spec.layers + 1) {
        for (Live& live : waiting_) live.edges = {0};
    }

    // A batch, before layer 1.
    void enter(Live live, bool more) {
        most_ = std::max(most_, live.edges.back());
        go(std::move(live), 1, more);
    }

    // Everybody who waits, to their answers.
    void flush() {
        for (int layer = 1; layer <= pass_.model().spec.layers; ++layer)
            if (count(waiting_[layer].edges)) go(called(layer), layer, false);
        for (Live& live : waiting_) pass_.workspace().give_back(std::move(live.states));
    }

  private:
    // Sequences that stand before a layer, to their answers, or until they wait for `more` to come.
    void go(Live live, int layer, bool more) {
        for (; count(live.edges) && layer <= pass_.model().spec.layers; ++layer) {
            if (layer > 1 && !enough(live, layer, more)) break;
            step(pass_, live, layer, rules_, outcomes_, begun_);
        }
        pass_.workspace().give_back(std::move(live.states));
    }

    // Whether these go on, perhaps with others who waited; else they are empty, and wait.
    bool enough(Live& live, int layer, bool more) {
        Live& queue = waiting_[layer];
        const int n = live.edges.back(), n_waiting = queue.edges.back();
        if (more ? 2 * n > most_ : n_waiting == 0) return true;
        if (n + n_waiting > most_) go(called(layer), layer, more);
        append(queue, live);
        if (!more) std::swap(queue, live);
        return !more;
    }

    Live called(int layer) {
        Live live{{}, {0}, {}, {}};
        std::swap(live, waiting_[layer]);
        return live;
    }

    // `live` behind those in the queue; it is empty then.
    void append(Live& queue, Live& live) {
        const size_t row = sizeof(float) * pass_.model().spec.hidden;
        const int before = queue.edges.back();
        if (queue.states.bytes() < row * most_) {
            Buffer larger = pass_.workspace().take();
            larger.reserve(row * most_);
            if (before) std::memcpy(larger.as<std::byte>(), queue.states.as<std::byte>(), row * before);
            std::swap(queue.states, larger);
            pass_.workspace().give_back(std::move(larger));
        }
        std::memcpy(queue.states.as<std::byte>() + row * before, live.states.as<std::byte>(), row * live.edges.back());
        queue.positions.insert(queue.positions.end(), live.positions.begin(), live.positions.end());
        queue.sequences.insert(queue.sequences.end(), live.sequences.begin(), live.sequences.end());
        for (size_t i = 1; i < live.edges.size(); ++i) queue.edges.push_back(before + live.edges[i]);
        live.edges = {0};
        live.positions.clear();
        live.sequences.clear();
    }

    Pass& pass_;
    const Rules& rules_;
    const Outcomes& outcomes_;
    const Clock::time_point begun_;
    int most_ = 0;               // tokens of a batch so far
    std::vector<Live> waiting_;  // [layer], 1 … L
};

}  // namespace

void answer_batches(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, const Edges& batches,
                    const Rules& rules, const Outcomes& outcomes) {
    const auto begun = Clock::now();
    Queues queues(pass, rules, outcomes, begun);
    std::vector<double> entered;
    for (int i = 0; i < count(batches); ++i) {
        entered.push_back(std::chrono::duration<double>(Clock::now() - begun).count());
        const int first = batches[i], token = edges[first];
        Edges own;
        for (int j = first; j <= batches[i + 1]; ++j) own.push_back(edges[j] - token);
        Live live =
            start(pass, ids + 2 * static_cast<ptrdiff_t>(token), positions + token, own, first, rules, outcomes);
        queues.enter(std::move(live), i + 1 < count(batches));
    }
    queues.flush();
    for (int i = 0; i < count(batches); ++i)
        for (int j = batches[i]; j < batches[i + 1]; ++j) outcomes.seconds[j] -= entered[i];
}

}  // namespace ziggurat
