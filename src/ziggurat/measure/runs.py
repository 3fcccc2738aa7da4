"""The calls that are timed for a profile, over shapes and rules, and the solution for the parts' costs."""

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

_FIRST_TOKEN = "one"  # a layer with only the first token of each text; solved for, but not stored
PARTS = (*(field.name for field in dataclasses.fields(Costs)), _FIRST_TOKEN)
BASE = 8  # effective length whose column has all T; the shortest ordinary texts
_MIDDLE = 192  # tokens at which all columns are measured, besides a single text and the grid's end
_KERNEL_ROWS, _KERNEL_BLOCKS = 6, 8  # of the compiled engine: see `token_grid`


@dataclass(frozen=True)
class Shape:
    """A batch of `tokens` in texts of about `length` each; the remainder is spread evenly."""

    tokens: int
    length: int

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each text, (n_texts) int64."""
        count = max(1, round(self.tokens / self.length))
        return np.array([(self.tokens + i) // count for i in range(count)], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Way:
    """A rule under which all shapes are run, and the number of times that such a call runs each part."""

    name: str
    rule: ExitRule
    counts: Mapping[str, float]  # of `PARTS`
    one_token: bool = False  # texts have only their first token


def token_grid(engine: str, threads: int) -> list[int]:
    """Live tokens to measure, rising.

    The compiled engine gives each thread blocks of 6, 12, … up to 48 rows. So its time is a step function: steps of 6
    rows per thread at first, of 48 later. The grid has both ends of each step. After the fifth large step a point at
    the middle is enough, because steps are small relative to the time. Other engines get steps of about a third.
    """
    if engine != "native":
        return [1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096]
    stair, block = _KERNEL_ROWS * threads, _KERNEL_ROWS * _KERNEL_BLOCKS
    small = [stair * k + more for k in range(1, _KERNEL_BLOCKS + 1) for more in (0, 1)][:-1]
    large = [block * (threads * k + more) for k in range(1, 6) for more in (0, 1)][1:]
    coarse = [block * threads * k + block // 2 for k in (6, 8, 12, 16, 24, 32)]
    return sorted({1, 2, 4, 8, *small, *large, *coarse})


def length_grid(max_length: int) -> list[int]:
    """Effective lengths: powers of two below the longest text, then the longest text."""
    return [*(2**i for i in range(math.ceil(math.log2(max(2, max_length))))), max(2, max_length)]


def base_of(lengths: Sequence[int]) -> int:
    """The length whose column has all T."""
    return max(length for length in lengths if length <= BASE)


def shapes_of(tokens: Sequence[int], lengths: Sequence[int]) -> list[Shape]:
    """Shapes that `completed` needs: the base column, and in other columns one text, a few and many."""
    base, shapes = base_of(lengths), []
    for n in tokens:
        shapes.append(Shape(n, min(n, base)))
    for length in lengths:
        counts = (1, math.ceil(_MIDDLE / length), tokens[-1] // length)
        shapes += [Shape(count * length, length) for count in counts if 0 < count * length <= max(tokens[-1], length)]
    return list(dict.fromkeys(shapes))


def ways_of(classifier: OpenedModel) -> list[Way]:
    """Rules that separate the parts of a call, as far as the model's rungs allow."""
    layers, n_rungs = classifier.backend.rung_layers, len(classifier.rungs)
    full = {"call": 1, "layer": layers[-1] - 1, "last": 1}
    ways = [Way("full", ExitRule.full_depth(n_rungs), full)]
    if n_rungs > 1:
        score = classifier.problem.scores[0]
        no_exit = np.full(n_rungs - 1, -exit_score(score).exit_all)  # heads are computed, but no input exits
        all_heads = replace(ExitRule.full_depth(n_rungs), score=score, thresholds=no_exit)
        ways.append(Way("heads", all_heads, full | {"head": n_rungs - 1}))
        for rung in dict.fromkeys([0, n_rungs - 2]):
            counts = {"call": 1, "layer": layers[rung], "head": 1}
            ways.append(Way(f"layer {layers[rung]}", ExitRule.fixed_depth(rung, n_rungs, score), counts))
    if classifier.token_rule is None or layers[-1] == 1:
        return ways
    return ways + _pruning_ways(classifier, classifier.token_rule)


def _pruning_ways(classifier: OpenedModel, tokens: TokenRule) -> list[Way]:
    """Pruning rules that keep all tokens, and rules that keep only the first token of each text; all at full depth.

    The cost of layers with first tokens alone is measured with a batch of such texts.
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
        Way("first tokens", full, {"call": 1, _FIRST_TOKEN: depth}, one_token=True),
    ]
    for layer in dict.fromkeys([1, depth - 1]):
        counts = {"call": 1, "layer": layer - 1, "attention": 1, _FIRST_TOKEN: rest_of_one + depth - layer}
        ways.append(Way(f"cut at layer {layer}", pruned(slice(layer - 1, layer), keep_first), counts))
    return ways


# Values at which a pruning rule keeps all tokens, and only the first token.
LEAST_AND_MOST: Mapping[Keep, tuple[float, float]] = {
    above: (1e-30, np.inf),
    top_share: (1.0, 0.0),
    top_count: (2.0**30, 1.0),
}


@dataclass(frozen=True, eq=False)
class Call:
    """A callable that runs several batches of one shape under one way."""

    classifier: OpenedModel
    encoded: Encoded
    n_texts: int  # per batch
    rule: ExitRule

    def __call__(self) -> None:
        """Runs the batches separately: their leftovers are not merged."""
        run_batches(self.classifier.backend, self._batches(), self.rule, len(self.encoded.tokens), together=0)

    def _batches(self) -> Iterator[PackedBatch]:
        for first in range(0, len(self.encoded.tokens), self.n_texts):
            yield pack_rows(self.encoded, first + np.arange(self.n_texts))


def call_of(classifier: OpenedModel, shape: Shape, way: Way, repeats: int, seed: int = 0) -> Call:
    """A call of `repeats` batches of different random texts, as in a data set; determined by `seed`."""
    rng = np.random.default_rng([shape.tokens, shape.length, seed])
    lengths = np.ones_like(shape.lengths) if way.one_token else shape.lengths
    tokens = random_tokens(rng, np.tile(lengths, repeats), classifier.spec.vocabulary)
    return Call(classifier, Encoded(tokens, np.zeros(len(tokens), bool)), len(lengths), way.rule)


def random_tokens(rng: np.random.Generator, lengths: np.ndarray, vocabulary: int) -> list[np.ndarray]:
    """Random texts of these lengths (n), each (length, 2): token ids and segment 0.

    Low ids are far more frequent, as in real texts. Uniform ids would make embedding look-ups too slow.
    """
    ids = [(vocabulary * rng.random(n) ** 3).astype(np.int64) for n in lengths.tolist()]
    return [np.stack([text, np.zeros_like(text)], axis=1) for text in ids]


def costs_of(
    spec: EncoderSpec,
    ways: Sequence[Way],
    seconds: Mapping[Shape, np.ndarray],
    tokens: Sequence[int],
    lengths: Sequence[int],
) -> Costs:
    """Solves for the table of costs from seconds of single batches, (n_ways) for each shape.

    Small parts, and parts that are a difference of large times, would be lost in the noise of one shape. They are
    fitted to all shapes together as linear functions of texts, tokens and pairs of tokens. The others are solved shape
    by shape.
    """
    counts = {part: np.array([way.counts.get(part, 0) for way in ways], dtype=np.float64) for part in PARTS}
    shapes, times = list(seconds), np.array(list(seconds.values()))
    features = np.array([[1.0, len(shape.lengths), shape.tokens, (shape.lengths**2).sum()] for shape in shapes])
    remaining, lines = times, dict[str, np.ndarray]()
    for part in _LINES:
        isolating = _isolating(counts, part, lines)
        if isolating is not None:
            noise = times @ np.abs(isolating)
            lines[part] = features @ nonnegative_line(features, remaining @ isolating, 1 / noise)
            remaining = remaining - np.outer(lines[part], counts[part])
    solved = [
        _solved(spec, shape, counts, lines, *row) for shape, *row in zip(shapes, remaining, 1 / times, strict=True)
    ]
    tables = {}
    for field in dataclasses.fields(Costs):
        values = lines.get(field.name, [parts.get(field.name, 0.0) for parts in solved])
        cells = {(shape.tokens, shape.length): float(value) for shape, value in zip(shapes, values, strict=True)}
        tables[field.name] = completed(cells, tokens, lengths, base_of(lengths))
    return Costs(**{name: tuple(map(tuple, table.tolist())) for name, table in tables.items()})


_LINES = ("head", "call", "last", "rest")  # in the order of fitting


def _isolating(counts: Mapping[str, np.ndarray], part: str, known: Collection[str]) -> np.ndarray | None:
    """Weights of the ways (n_ways) whose weighted sum has this part once and no other unknown part; None if impossible.

    The weights are the smallest such ones, because each way adds noise.
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
    """Seconds of the other parts at one shape; if no way prunes, a layer's seconds are divided by FLOPs."""
    names = [part for part in PARTS if part not in known and counts[part].any()]
    rows = np.array([counts[part] for part in names]).T
    parts: dict[str, float] = dict(zip(names, nonnegative(rows, seconds, weights).tolist(), strict=True))
    if not counts["attention"].any():
        entering = layer_flops(spec, shape.lengths, 0 * shape.lengths).sum()
        share = float(entering / layer_flops(spec, shape.lengths).sum())
        layer = parts.get("layer", parts.get("last", 0.0))
        parts |= {"attention": share * layer, "rest": (1 - share) * layer}
    return parts
