// Which sequences exit and which tokens are pruned. The specification is the Python code: `ziggurat.policies` (scores,
// masks) and the exit rule of `ziggurat.engine`.
#pragma once

#include <cstdint>
#include <vector>

namespace ziggurat {

enum class ExitScore : uint8_t {
    entropy,  // over ln N, in [0, 1]
    max_probability,
    margin,
    agreement,           // number of equal predictions in total (S3)
    agreement_in_a_row,  // number of equal predictions at the end (PABEE)
    top_entropy,         // of the `parameter` likeliest classes
    confident_in_a_row,  // number of rungs at the end with an entropy of at most `parameter`
    learned,             // a logistic model, with weights per rung
    change,              // of a regression's number since the active rung before; infinite at the first
    label_entropy,       // multi-label: of the least confident label, over ln 2
};

struct ExitRule {
    ExitScore score = ExitScore::entropy;
    double parameter = 0;
    int n_rungs = 1;
    const double* thresholds = nullptr;    // (n_rungs - 1), NaN = inactive; of sequence i at thresholds + i * stride
    int64_t stride = 0;                    // 0 = the same for all
    const double* temperatures = nullptr;  // (n_rungs) or null = 1
    const double* deferral =
        nullptr;  // (n_rungs - 1, 4 + n_classes): weights of the learned score; null for other scores

    // Whether sequences may exit at this rung, so that its logits are computed: it has a threshold, or is the last.
    bool active(int rung) const;

    // The score at `rung`, which is not the last. `logits` (active rungs so far, n_classes) has the latest rung in its
    // last row; `active_rungs` says which rungs the rows are of.
    double value(int rung, const float* logits, const std::vector<int>& active_rungs, int n_classes) const;

    // Whether sequence `row` exits at `rung`, from the same logits.
    bool exits(int64_t row, int rung, const float* logits, const std::vector<int>& active_rungs, int n_classes) const;
};

enum class Keep : uint8_t { all, threshold, share, count };
enum class Scale : uint8_t { relative, paper, ltp_code };
enum class TokenScore : uint8_t { received, received_from_others, predicted };

struct TokenRule {
    Keep keep = Keep::all;
    TokenScore score = TokenScore::received;
    Scale scale = Scale::relative;
    const double* values = nullptr;       // (L), NaN = no pruning at this layer
    const uint8_t* vocabulary = nullptr;  // (n_vocabulary), 1 = tokens of this entry are read; null = all are

    bool prunes(int layer) const;

    // Which of the n tokens of a sequence stay at layer 1 … L, from relative scores: writes 0 or 1. The first one
    // always stays. `original` is the number of tokens before any pruning.
    void keep_tokens(int layer, const float* scores, int n, int64_t original, uint8_t* kept) const;
};

}  // namespace ziggurat
