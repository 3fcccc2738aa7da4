// The adaptive forward: tokens leave inside layers, sequences at rungs.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

#include "pass.h"
#include "rules.h"

namespace ziggurat {

// Sequences on their way, between two layers.
struct Live {
    Buffer states;                   // (n_tokens, d) float
    Edges edges;                     // (n_seqs + 1)
    std::vector<int64_t> positions;  // (n_tokens), where each token stood in its text
    std::vector<int32_t> sequences;  // (n_seqs), which input of the call each is
};

// What became of the inputs of a call; arrays belong to the caller, who has filled them with "nothing yet".
struct Outcomes {
    float* logits;    // (n, n_classes), of the rung that answered
    int64_t* rungs;   // (n), -1 = not answered yet
    double* seconds;  // (n), from the start of the call to the answer
    int64_t* kept;    // (n, L + 1): tokens that entered layer 1, then those that each layer left; 0 = it did not run
    float* history;   // (n, n_rungs, n_classes): what asked rungs said
};

struct Rules {
    TokenRule tokens;
    ExitRule exits;
    const int64_t* original;  // (n): tokens of each input before any pruning
};

// Token ids (n_tokens, 2) of whole inputs, at their positions → the states of those tokens that the rule reads. The inputs
// are the call's from number `first` on.
Live start(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, int first, const Rules& rules,
           const Outcomes& outcomes);

// One layer, and the rung behind it if there is one and it is asked. Whoever has an answer leaves `live`.
void step(Pass& pass, Live& live, int layer, const Rules& rules, const Outcomes& outcomes,
          std::chrono::steady_clock::time_point begun);

// Runs layers first … last. Only a call that ends with layer L ends with nobody.
void advance(Pass& pass, Live& live, int first, int last, const Rules& rules, const Outcomes& outcomes,
             std::chrono::steady_clock::time_point begun);

}  // namespace ziggurat
