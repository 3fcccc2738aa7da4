#include "engine/rules.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace ziggurat {

namespace {

constexpr double LTP_PADDED = 128;
constexpr double MAX_LEAD =
    20;  // nats between the first two classes; the learned score does not tell larger ones apart

// (n) logits → log-probabilities, in place.
void log_softmax(double* logits, int n) {
    const double peak = *std::max_element(logits, logits + n);
    double sum = 0;
    for (int i = 0; i < n; ++i) {
        logits[i] -= peak;
        sum += std::exp(logits[i]);
    }
    const double log_sum = std::log(sum);
    for (int i = 0; i < n; ++i) logits[i] -= log_sum;
}

// Entropy of (n) log-probabilities, over ln n.
double entropy_of(const double* logs, int n) {
    double entropy = 0;
    for (int i = 0; i < n; ++i) entropy -= std::exp(logs[i]) * logs[i];
    return std::clamp(entropy / std::log(static_cast<double>(n)), 0.0, 1.0);
}

double normalised_entropy(double* logits, int n) {
    log_softmax(logits, n);
    return entropy_of(logits, n);
}

double top_entropy(double* logits, int n_classes, int n) {
    if (n < n_classes) {
        std::nth_element(logits, logits + n, logits + n_classes, std::greater<>());
        n_classes = n;
    }
    return normalised_entropy(logits, n_classes);
}

double max_probability(double* logits, int n) {
    log_softmax(logits, n);
    return std::exp(*std::max_element(logits, logits + n));
}

double margin(double* logits, int n) {
    log_softmax(logits, n);
    std::partial_sort(logits, logits + 2, logits + n, std::greater<>());
    return std::exp(logits[0]) - std::exp(logits[1]);
}

// How many rungs predicted the class that the rung before predicted: in total, or in a row at the end.
double agreement(const double* logits, int n_rows, int n_classes, bool in_a_row) {
    double count = 0;
    int64_t before = -1;
    for (int i = 0; i < n_rows; ++i, logits += n_classes) {
        const int64_t predicted = std::max_element(logits, logits + n_classes) - logits;
        if (predicted == before)
            count += 1;
        else if (in_a_row)
            count = 0;
        before = predicted;
    }
    return count;
}

double confident_in_a_row(double* logits, int n_rows, int n_classes, double largest) {
    double count = 0;
    for (int i = 0; i < n_rows; ++i)
        count = normalised_entropy(logits + static_cast<int64_t>(i) * n_classes, n_classes) <= largest ? count + 1 : 0;
    return count;
}

// The logistic model on the logits of one rung. Its inputs: 1, margin, lead in nats, entropy, and the predicted class.
double learned(double* logits, int n, const double* weights) {
    const int64_t predicted = std::max_element(logits, logits + n) - logits;
    log_softmax(logits, n);
    const double entropy = entropy_of(logits, n);
    std::partial_sort(logits, logits + 2, logits + n, std::greater<>());
    const double lead = std::min(logits[0] - logits[1], MAX_LEAD);
    const double sum = weights[0] + weights[1] * (std::exp(logits[0]) - std::exp(logits[1])) + weights[2] * lead +
                       weights[3] * entropy + weights[4 + predicted];
    return 1 / (1 + std::exp(-sum));
}

// The same for the number of a regression. Inputs: 1, the number, its square, its change since the rung before, the
// square of the change.
double learned_number(const double* logits, int n_rows, const double* weights) {
    const double number = logits[n_rows - 1], moved = n_rows < 2 ? 0 : std::abs(number - logits[n_rows - 2]);
    const double sum = weights[0] + weights[1] * number + weights[2] * number * number + weights[3] * moved +
                       weights[4] * moved * moved;
    return 1 / (1 + std::exp(-sum));
}

double change(const double* logits, int n_rows, int n_classes) {
    if (n_rows < 2) return std::numeric_limits<double>::infinity();
    const double* latest = logits + static_cast<int64_t>(n_rows - 1) * n_classes;
    return std::abs(latest[0] - latest[-n_classes]);
}

double label_entropy(const double* logits, int n) {
    double label_logits[2] = {std::numeric_limits<double>::infinity(), 0};
    for (int i = 0; i < n; ++i) label_logits[0] = std::min(label_logits[0], std::abs(logits[i]));
    return normalised_entropy(label_logits, 2);
}

bool larger_is_more_confident(ExitScore score) {
    switch (score) {
        case ExitScore::entropy:
        case ExitScore::top_entropy:
        case ExitScore::change:
        case ExitScore::label_entropy:
            return false;
        default:
            return true;
    }
}

// Marks the `count` tokens with the highest scores; among equals the earlier ones. The first token is always marked.
void keep_best(const float* scores, int n, double count, uint8_t* kept) {
    std::vector<int> order(n);
    std::iota(order.begin(), order.end(), 0);
    const auto value = [&](int i) { return std::isnan(scores[i]) ? -1.0F : scores[i]; };
    std::stable_sort(order.begin() + 1, order.end(), [&](int a, int b) { return value(a) > value(b); });
    for (int rank = 0; rank < n; ++rank) kept[order[rank]] = rank < count;
}

}  // namespace

bool ExitRule::active(int rung) const { return rung == n_rungs - 1 || !std::isnan(thresholds[rung]); }

double ExitRule::value(int rung, const float* history, const std::vector<int>& active_rungs, int n_classes) const {
    const int n_rows = static_cast<int>(active_rungs.size());
    std::vector<double> logits(history, history + static_cast<int64_t>(n_rows) * n_classes);
    if (temperatures)
        for (size_t i = 0; i < logits.size(); ++i) logits[i] /= temperatures[active_rungs[i / n_classes]];
    // Sorting needs numbers that can be compared. A score of NaN never passes a threshold.
    for (const double logit : logits)
        if (!std::isfinite(logit)) return std::nan("");
    double* latest = logits.data() + static_cast<int64_t>(n_rows - 1) * n_classes;
    switch (score) {
        case ExitScore::entropy:
            return normalised_entropy(latest, n_classes);
        case ExitScore::max_probability:
            return max_probability(latest, n_classes);
        case ExitScore::margin:
            return margin(latest, n_classes);
        case ExitScore::agreement:
            return agreement(logits.data(), n_rows, n_classes, false);
        case ExitScore::agreement_in_a_row:
            return agreement(logits.data(), n_rows, n_classes, true);
        case ExitScore::top_entropy:
            return top_entropy(latest, n_classes, static_cast<int>(parameter));
        case ExitScore::confident_in_a_row:
            return confident_in_a_row(logits.data(), n_rows, n_classes, parameter);
        case ExitScore::learned: {
            const double* weights = deferral + static_cast<int64_t>(rung) * (4 + n_classes);
            return n_classes == 1 ? learned_number(logits.data(), n_rows, weights)
                                  : learned(latest, n_classes, weights);
        }
        case ExitScore::change:
            return change(logits.data(), n_rows, n_classes);
        case ExitScore::label_entropy:
            return label_entropy(latest, n_classes);
    }
    return 0;
}

bool ExitRule::exits(int64_t row, int rung, const float* logits, const std::vector<int>& active_rungs,
                     int n_classes) const {
    if (rung == n_rungs - 1) return true;
    const double score_now = value(rung, logits, active_rungs, n_classes), threshold = thresholds[row * stride + rung];
    return larger_is_more_confident(score) ? score_now >= threshold : score_now <= threshold;
}

bool TokenRule::prunes(int layer) const {
    if (keep == Keep::all || std::isnan(values[layer - 1])) return false;
    return keep != Keep::threshold || values[layer - 1] > 0;
}

void TokenRule::keep_tokens(int layer, const float* scores, int n, int64_t original, uint8_t* kept) const {
    const double value = values[layer - 1];
    if (keep == Keep::threshold) {
        const double factor = scale == Scale::relative ? 1 : 1 / (scale == Scale::paper ? original : LTP_PADDED);
        for (int i = 0; i < n; ++i) kept[i] = scores[i] * factor > value;
    } else {
        keep_best(scores, n, keep == Keep::share ? std::nearbyint(value * original) : value, kept);
    }
    kept[0] = 1;
}

}  // namespace ziggurat
