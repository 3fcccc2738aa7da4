// Who leaves: the decisions of `ziggurat.engine.rules` and `ziggurat.policies`, which are their specification.
#pragma once

#include <cstdint>
#include <vector>

namespace ziggurat {

enum class ExitScore : uint8_t {
    entropy,  // over ln N, in [0, 1]
    max_probability,
    margin,
    agreement,           // never reset (S3)
    agreement_in_a_row,  // (PABEE)
    top_entropy,         // of the `parameter` likeliest classes
    confident_in_a_row,  // rungs with an entropy of at most `parameter`
    learned,             // a logistic model with weights of each rung's own
    change,              // of a regression's number since the asked rung before, infinite where there is none
    label_entropy,       // of the least sure of labels that are yes or no each, over ln 2
};

struct ExitRule {
    ExitScore score = ExitScore::entropy;
    double parameter = 0;
    int n_rungs = 1;
    const double* thresholds = nullptr;    // (n_rungs - 1), NaN = not asked; of sequence i at thresholds + i * stride
    int64_t stride = 0;                    // 0 = the same for all
    const double* temperatures = nullptr;  // (n_rungs) or null = 1
    const double* deferral = nullptr;  // (n_rungs - 1, 4 + n_classes): weights of the learned score, null for others

    bool asked(int rung) const;

    // The score at `rung`, but not at the last: logits (heard, n_classes), the latest last, said by rungs `heard`.
    double value(int rung, const float* logits, const std::vector<int>& heard, int n_classes) const;

    // Whether sequence `row` has its answer at `rung`, from the same.
    bool leaves(int64_t row, int rung, const float* logits, const std::vector<int>& heard, int n_classes) const;
};

enum class Keep : uint8_t { all, threshold, share, count };
enum class Scale : uint8_t { relative, paper, ltp_code };
enum class TokenScore : uint8_t { received, received_from_others, predicted };

struct TokenRule {
    Keep keep = Keep::all;
    TokenScore score = TokenScore::received;
    Scale scale = Scale::relative;
    const double* values = nullptr;       // (L), NaN = nobody leaves there
    const uint8_t* vocabulary = nullptr;  // (n_vocabulary) or null = every entry is read

    bool prunes(int layer) const;

    // Which of a sequence's n tokens stay at layer 1 … L, from relative scores: writes 0 or 1. The first always does.
    void stays(int layer, const float* scores, int n, int64_t original, uint8_t* kept) const;
};

}  // namespace ziggurat
