"""When a question has no answer in its context: the threshold of SQuAD 2.0, chosen on select rows."""

from __future__ import annotations

import numpy as np

_HAIR = 1e-4  # beyond the smallest and largest lead


def best_no_answer(leads: np.ndarray, answered: np.ndarray, silent: np.ndarray) -> float:
    """The threshold with the best mean score: above it a question is said to have no answer.

    `leads` (n): score of "no answer" minus that of the best span; `answered` and `silent` (n): what a question scores
    with that span, and without an answer. Of equally good ones the lowest; between leads that occur, never on one.
    """
    order = np.argsort(leads, kind="stable")
    sorted_leads = leads[order]
    totals = np.concatenate([[0.0], np.cumsum((answered - silent)[order])])  # of answering the first k alone
    cuts = np.flatnonzero(np.diff(sorted_leads) > 0) + 1  # equal leads are answered together
    counts = np.concatenate([[0], cuts, [len(leads)]])
    answers = int(counts[totals[counts].argmax()])
    if answers == 0:
        return float(sorted_leads[0] - _HAIR)
    if answers == len(leads):
        return float(sorted_leads[-1] + _HAIR)
    return float((sorted_leads[answers - 1] + sorted_leads[answers]) / 2)
