"""What is timed for a profile: calls of the engine over shapes and rules, and the table that they solve to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ziggurat.data.packing import PackedBatch
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder.flops import layer_flops
from ziggurat.encoder.spec import EncoderSpec
from ziggurat.engine.opened import OpenedModel
from ziggurat.engine.replay import run_batches
from ziggurat.measure.predicted_time import Costs, completed, nonnegative, nonnegative_line
from ziggurat.policies.exits import exit_score
from ziggurat.policies.prune import Keep, TokenRule, above, top_count, top_share
from ziggurat.policies.rules import ExitRule

_ONE = "one"  # what a layer costs that has the first token alone of each text: told apart, and not kept
PARTS = (*(field.name for field in dataclasses.fields(Costs)), _ONE)
BASE = 8  # effective length whose column has every T: the shortest of ordinary texts
_MIDDLE = 192  # tokens at which every column is measured, besides one text alone and the grid's end
_KERNEL_ROWS, _KERNEL_BLOCKS = 6, 8  # of the compiled engine: see `token_grid`


@dataclass(frozen=True)
class Shape:
    """A batch of `tokens` in texts of about `length` each; the remainder is spread."""

    tokens: int
    length: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (n_texts) int64."""
        count = max(1, round(self.tokens / self.length))
        return np.array([(self.tokens + i) // count for i in range(count)], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Way:
    """One rule by which every shape is run, and how often each part is in such a call."""

    name: str
    rule: ExitRule
    counts: Mapping[str, float]  # of `PARTS`
    one_token: bool = False  # run with the first token alone of each text


def token_grid(engine: str, threads: int) -> list[int]:
    """Live tokens that are measured, rising.

    The compiled engine gives each thread blocks of 6, 12, … up to 48 rows, so its time climbs in stairs, of 6 rows per
    thread at first and of 48 later: both ends of each stair. Behind the fifth large one they are too flat to matter; a
    point that lies on their average will do. Other engines: steps of about a third.
    """
    if engine != "native":
        return [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096]
    stair, block = _KERNEL_ROWS * threads, _KERNEL_ROWS * _KERNEL_BLOCKS
    small = [stair * k + more for k in range(1, _KERNEL_BLOCKS + 1) for more in (0, 1)][:-1]
    large = [block * (threads * k + more) for k in range(1, 6) for more in (0, 1)][1:]
    coarse = [block * threads * k + block // 2 for k in (6, 8, 12, 16, 24, 32)]
    return sorted({1, 2, 4, 8, *small, *large, *coarse})


def length_grid(max_length: int) -> list[int]:
    """Effective lengths: powers of two below the longest text, and that one."""
    return [*(2**i for i in range(math.ceil(math.log2(max(2, max_length))))), max(2, max_length)]


def base_of(lengths: Sequence[int]) -> int:
    """Which length has every T."""
    return max(length for length in lengths if length <= BASE)


def shapes_of(tokens: Sequence[int], lengths: Sequence[int]) -> list[Shape]:
    """What `completed` asks for: the base column, and of the others one text, some and many."""
    base, shapes = base_of(lengths), []
    for n in tokens:
        shapes.append(Shape(n, min(n, base)))
    for length in lengths:
        counts = (1, math.ceil(_MIDDLE / length), tokens[-1] // length)
        shapes += [Shape(count * length, length) for count in counts if 0 < count * length <= max(tokens[-1], length)]
    return list(dict.fromkeys(shapes))


def ways_of(classifier: OpenedModel) -> list[Way]:
    """Rules that tell the parts of a call apart, as far as the model's rungs can."""
    layers, n_rungs = classifier.backend.rung_layers, len(classifier.rungs)
    full = {"call": 1, "layer": layers[-1] - 1, "last": 1}
    ways = [Way("full", ExitRule.full_depth(n_rungs), full)]
    if n_rungs > 1:
        score = classifier.problem.scores[0]
        nobody = np.full(n_rungs - 1, -exit_score(score).exit_all)  # asked, and nobody leaves
        everything = replace(ExitRule.full_depth(n_rungs), score=score, thresholds=nobody)
        ways.append(Way("heads", everything, full | {"head": n_rungs - 1}))
        for rung in dict.fromkeys([0, n_rungs - 2]):
            counts = {"call": 1, "layer": layers[rung], "head": 1}
            ways.append(Way(f"layer {layers[rung]}", ExitRule.fixed_depth(rung, n_rungs, score), counts))
    if classifier.token_rule is None or layers[-1] == 1:
        return ways
    return ways + _pruning_ways(classifier, classifier.token_rule)


def _pruning_ways(classifier: OpenedModel, tokens: TokenRule) -> list[Way]:
    """Scores that take nobody out, and layers that leave each text its first token alone; all at full depth.

    What runs on the first tokens is known from a batch of nothing else.
    """
    depth, spec = classifier.backend.n_layers, classifier.spec
    keep_all, keep_first = LEAST_AND_MOST[tokens.keep]
    rest_of_one = 1 - layer_flops(spec, 1, 0) / layer_flops(spec, 1)
    full = ExitRule.full_depth(len(classifier.rungs))

    def pruned(layers: slice, value: float) -> ExitRule:
        values = np.full(depth, np.nan)
        values[layers] = value
        return replace(full, tokens=replace(tokens, values=values, vocabulary=None))

    scores = {"call": 1, "attention": depth - 1, "rest": depth - 1, "last": 1}
    ways = [
        Way("scores", pruned(slice(0, depth - 1), keep_all), scores),
        Way("first tokens", full, {"call": 1, _ONE: depth}, one_token=True),
    ]
    for layer in dict.fromkeys([1, depth - 1]):
        counts = {"call": 1, "layer": layer - 1, "attention": 1, _ONE: rest_of_one + depth - layer}
        ways.append(Way(f"cut at layer {layer}", pruned(slice(layer - 1, layer), keep_first), counts))
    return ways


# Values at which a rule that prunes keeps everything, and the first token alone.
LEAST_AND_MOST: Mapping[Keep, tuple[float, float]] = {
    above: (1e-30, np.inf),
    top_share: (1.0, 0.0),
    top_count: (2.0**30, 1.0),
}


@dataclass(frozen=True, eq=False)
class Call:
    """One shape run one way, several batches in a row; called, it does the work."""

    classifier: OpenedModel
    encoded: Encoded
    n_texts: int  # of a batch
    rule: ExitRule

    def __call__(self) -> None:
        """Runs the batches, each by itself: what one leaves does not run with what another does."""
        run_batches(self.classifier.backend, self._batches(), self.rule, len(self.encoded.tokens), together=0)

    def _batches(self) -> Iterator[PackedBatch]:
        for first in range(0, len(self.encoded.tokens), self.n_texts):
            yield pack_rows(self.encoded, first + np.arange(self.n_texts))


def call_of(classifier: OpenedModel, shape: Shape, way: Way, repeats: int, seed: int = 0) -> Call:
    """A call of `repeats` batches of random texts, none twice, as in a data set; the same ones for the same `seed`."""
    rng = np.random.default_rng([shape.tokens, shape.length, seed])
    lengths = np.ones_like(shape.lengths) if way.one_token else shape.lengths
    tokens = random_tokens(rng, np.tile(lengths, repeats), classifier.spec.vocabulary)
    return Call(classifier, Encoded(tokens, np.zeros(len(tokens), bool)), len(lengths), way.rule)


def random_tokens(rng: np.random.Generator, lengths: np.ndarray, vocabulary: int) -> list[np.ndarray]:
    """Texts of these lengths (n), each (length, 2): token ids, low ones far more often, as in real texts; segment 0.

    Where every id was as likely, looking embeddings up would take longer than it does.
    """
    ids = [(vocabulary * rng.random(n) ** 3).astype(np.int64) for n in lengths.tolist()]
    return [np.stack([some, np.zeros_like(some)], axis=1) for some in ids]


def costs_of(
    spec: EncoderSpec,
    ways: Sequence[Way],
    seconds: Mapping[Shape, np.ndarray],
    tokens: Sequence[int],
    lengths: Sequence[int],
) -> Costs:
    """The table from seconds of single batches, for each shape one of each way.

    Parts that are small or a difference of large times would be lost in the noise of one shape: they are lines, of
    texts, tokens and pairs of tokens, fitted to all shapes together. The rest is solved shape by shape.
    """
    counts = {part: np.array([way.counts.get(part, 0) for way in ways], dtype=np.float64) for part in PARTS}
    shapes, times = list(seconds), np.array(list(seconds.values()))
    features = np.array([[1.0, len(shape.lengths), shape.tokens, (shape.lengths**2).sum()] for shape in shapes])
    left, lines = times, dict[str, np.ndarray]()
    for part in _LINES:
        telling = _telling(counts, part, lines)
        if telling is not None:
            noise = times @ np.abs(telling)
            lines[part] = features @ nonnegative_line(features, left @ telling, 1 / noise)
            left = left - np.outer(lines[part], counts[part])
    solved = [_solved(spec, shape, counts, lines, *row) for shape, *row in zip(shapes, left, 1 / times, strict=True)]
    tables = {}
    for field in dataclasses.fields(Costs):
        values = lines.get(field.name, [parts.get(field.name, 0.0) for parts in solved])
        cells = {(shape.tokens, shape.length): float(value) for shape, value in zip(shapes, values, strict=True)}
        tables[field.name] = completed(cells, tokens, lengths, base_of(lengths))
    return Costs(**{name: tuple(map(tuple, table.tolist())) for name, table in tables.items()})


_LINES = ("head", "call", "last", "rest")  # in the order in which they are fitted


def _telling(counts: Mapping[str, np.ndarray], part: str, known: Collection[str]) -> np.ndarray | None:
    """Weights of the ways (n_ways) whose sum holds one of this part and nothing else that is not known, or None.

    The smallest such weights: each way brings its noise.
    """
    rows = np.array([counts[part], *(counts[name] for name in PARTS if name != part and name not in known)])
    wanted = np.eye(len(rows))[0]
    weights: np.ndarray = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    return weights if np.allclose(rows @ weights, wanted, atol=1e-6) else None


def _solved(
    spec: EncoderSpec,
    shape: Shape,
    counts: Mapping[str, np.ndarray],
    known: Collection[str],
    seconds: np.ndarray,
    weights: np.ndarray,
) -> dict[str, float]:
    """Seconds of the other parts in one shape; where no way prunes, a layer's seconds are divided by FLOPs."""
    names = [part for part in PARTS if part not in known and counts[part].any()]
    rows = np.array([counts[part] for part in names]).T
    parts: dict[str, float] = dict(zip(names, nonnegative(rows, seconds, weights).tolist(), strict=True))
    if not counts["attention"].any():
        entering = layer_flops(spec, shape.lengths, 0 * shape.lengths).sum()
        share = float(entering / layer_flops(spec, shape.lengths).sum())
        whole = parts.get("layer", parts.get("last", 0.0))
        parts |= {"attention": share * whole, "rest": (1 - share) * whole}
    return parts
