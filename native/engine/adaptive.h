// The adaptive forward pass: layers prune tokens, sequences exit at rungs. First one batch, then several in one call.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "engine/pass.h"
#include "engine/rules.h"

namespace ziggurat {

// The sequences of a batch that still run, between two layers.
struct Live {
    Buffer states;                   // (n_tokens, d) float
    Edges edges;                     // (n_seqs + 1)
    std::vector<int64_t> positions;  // (n_tokens), of each token in its text, counted before pruning
    std::vector<int32_t> sequences;  // (n_seqs), index of each among the inputs of the call
};

// Results per input of a call. The caller owns the arrays and has filled them with "no result yet".
struct Outcomes {
    float* logits;    // (n, n_classes), of the rung where the input exited
    int64_t* rungs;   // (n), where the input exited; -1 = it still runs
    double* seconds;  // (n), from the start of the call to the exit
    int64_t* kept;   // (n, L + 1): tokens that entered layer 1, then tokens after each layer; 0 = the layer did not run
    float* history;  // (n, n_rungs, n_classes): logits of the active rungs so far, in order
};

struct Rules {
    TokenRule tokens;
    ExitRule exits;
    const int64_t* original;  // (n): tokens of each input before any pruning
};

// Token and segment ids (n_tokens, 2) of whole inputs, at their positions → the states before layer 1, without tokens
// outside of the rule's vocabulary. The first sequence is input `first` of the call.
Live start(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, int first, const Rules& rules,
           const Outcomes& outcomes);

// Runs one layer, and the rung after it if there is an active one. Sequences that exit are removed from `live`.
void step(Pass& pass, Live& live, int layer, const Rules& rules, const Outcomes& outcomes,
          std::chrono::steady_clock::time_point started);

// Runs layers first … last, or fewer if all sequences exit before. After layer L none is left.
void advance(Pass& pass, Live& live, int first, int last, const Rules& rules, const Outcomes& outcomes,
             std::chrono::steady_clock::time_point started);

// Runs several batches of whole inputs, token and segment ids (n_tokens, 2) at their positions, until all have exited.
// Sequences batches[i] … batches[i + 1] - 1 start together. Small leftovers, of at most half the tokens of the largest
// batch so far, wait before the next layer and are merged with later batches, up to the size of the largest batch.
void answer_batches(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, const Edges& batches,
                    const Rules& rules, const Outcomes& outcomes);

}  // namespace ziggurat
