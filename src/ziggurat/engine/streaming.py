"""Texts that arrive some at a time, through the queues of a ladder, to numbered answers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ziggurat.data.tokenizer import Encoded
from ziggurat.engine.escalation import Escalation, Finished
from ziggurat.engine.opened import refuse_no_numbers
from ziggurat.types import Answer

if TYPE_CHECKING:
    from ziggurat.engine.classifier import AdaptiveClassifier, Text


def streamed(
    model: AdaptiveClassifier, arrivals: Iterable[Sequence[Text]], queues: Escalation
) -> Iterator[tuple[int, Answer]]:
    """The number of each text, from 0, with its answer; see `AdaptiveClassifier.stream`."""
    inputs: dict[int, Encoded] = {}  # that have no answer yet
    arrived = 0
    for texts in arrivals:
        encoded = model.encode(texts)
        inputs |= {arrived + row: encoded.take(np.array([row])) for row in range(len(encoded))}
        arrived += len(encoded)
        yield from _numbered(model, queues.submit(encoded), inputs, queues)
        yield from _numbered(model, queues.poll(), inputs, queues)
    yield from _numbered(model, queues.flush(), inputs, queues)


def _numbered(
    model: AdaptiveClassifier, finished: Iterable[Finished], inputs: dict[int, Encoded], queues: Escalation
) -> Iterator[tuple[int, Answer]]:
    for some in finished:
        for row, number in enumerate(some.numbers.tolist()):
            outcomes = some.outcomes.take(np.array([row]))
            refuse_no_numbers(~np.isfinite(outcomes.logits))
            yield number, model.answers(inputs.pop(number), outcomes, queues.rule)[0]
