// Several batches in one call: what is left of one may wait for what is left of the next.
#pragma once

#include "adaptive.h"

namespace ziggurat {

// Runs whole inputs, token ids (n_tokens, 2) at their positions, to their answers: sequences batches[i] … batches[i + 1] - 1
// enter together. Where less than half as many tokens are left as the largest batch had so far, they wait before the next
// layer for those of later batches, until there would be more: no layer runs for a few, and none for more than that.
void answer_batches(Pass& pass, const int64_t* ids, const int64_t* positions, const Edges& edges, const Edges& batches,
                    const Rules& rules, const Outcomes& outcomes);

}  // namespace ziggurat
