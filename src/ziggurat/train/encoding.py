"""Rows of any kind as what stages learn from."""

from __future__ import annotations

import numpy as np

from ziggurat.data.cloze import cloze_questions
from ziggurat.data.squad import Questions
from ziggurat.data.tasks import Dataset
from ziggurat.data.tokenize import Encoded, TextTokenizer
from ziggurat.data.windows import gold_tokens, windows_of
from ziggurat.errors import UserError
from ziggurat.recipe import Recipe
from ziggurat.train.batches import Examples


def examples_of(rows: Dataset | Questions, tokenizer: TextTokenizer, recipe: Recipe) -> Examples:
    """Token ids and labels; of questions those of their windows."""
    if isinstance(rows, Questions):
        windows = windows_of(tokenizer, rows.texts, rows.contexts, recipe.spans)
        nothing = np.full((len(windows.tokens), 2), -1)
        spans = nothing if rows.answers is None else gold_tokens(windows, rows.answers)
        return Examples(Encoded(windows.tokens, windows.cut[windows.owners]), spans)
    return Examples(tokenizer.encode(rows.texts, rows.pairs), rows.labels_or_none)


def clozes_of(rows: Dataset | Questions, recipe: Recipe) -> dict[int, Questions]:
    """For each number of cloze questions per sentence that a stage wants, those about the rows' contexts.

    UserError for rows that are no questions, or contexts without a sentence that could be asked about.
    """
    made = {}
    for count in {stage.cloze for stage in recipe.stages} - {0}:
        if not isinstance(rows, Questions):
            raise UserError(
                f"recipe {recipe.name!r}: cloze questions need contexts, and {rows.source} has none; set cloze = 0"
            )
        made[count] = cloze_questions(rows, count, recipe.seed)
        if not len(made[count]):
            raise UserError(f"{rows.source}: no sentence of its contexts can be asked about; set cloze = 0")
    return made
