"""Measured cost: seconds of the parts of a call on one machine, and the predicted time of a whole data set from them.

A `Profile` holds, for one machine, engine and model shape, the seconds of each part of a call in a grid over live
tokens T and the effective length Σn² / Σn of the texts that share the batch (attention is quadratic: T tokens of
effective length e cost T·e). Between grid points seconds are linear in T and in log e; beyond the last T they go on
along the line from about half of it. Fast, and numpy alone: a search for operating points predicts thousands of times.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ziggurat.config import from_mapping
from ziggurat.engine.backend import TOGETHER
from ziggurat.errors import UserError
from ziggurat.system import cached_property

_ROUNDS = 20  # of reweighting


def nonnegative(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares x ≥ 0 of `weights` (m) * (`rows` (m, k) @ x - `wanted` (m)): (k).

    Tries every set of entries that may be 0: there are few. Where x is not determined, a small one.
    """
    rows, wanted = rows * weights[:, None], wanted * weights
    k = rows.shape[1]
    best, least = np.zeros(k), float((wanted**2).sum())
    for size in range(k, 0, -1):
        for some in map(list, combinations(range(k), size)):
            found = np.linalg.lstsq(rows[:, some], wanted, rcond=None)[0]
            error = float(((rows[:, some] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(k), error
                best[some] = found
    return best


def nonnegative_line(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The same with absolute errors in place of squares: a few timings that a neighbour disturbed do not bend it."""
    found = nonnegative(rows, wanted, weights)
    for _ in range(_ROUNDS):
        errors = weights * np.abs(rows @ found - wanted)
        found = nonnegative(rows, wanted, weights / np.sqrt(np.maximum(errors, 1e-3 * errors.max() + 1e-300)))
    return found


def rising(values: np.ndarray) -> np.ndarray:
    """The nearest values (k) ≥ 0 that never fall: neighbours that do are replaced by their mean."""
    blocks: list[tuple[float, int]] = []  # mean, how many
    for value in values.tolist():
        mean, many = max(value, 0.0), 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, many = (before * more + mean * many) / (more + many), more + many
        blocks.append((mean, many))
    return np.repeat([mean for mean, _ in blocks], [many for _, many in blocks])


def typical(runs: np.ndarray) -> np.ndarray:
    """Seconds (rounds, k) of k calls that were timed one after the other in each round → (k), one for each call.

    The median round's sum, divided by the median shares: what slows a whole round down does not change shares.
    """
    sums = runs.sum(axis=1)
    shares = np.median(runs / sums[:, None], axis=0)
    typical: np.ndarray = np.median(sums) * shares / shares.sum()
    return typical


def completed(
    measured: Mapping[tuple[int, int], float], tokens: Sequence[int], lengths: Sequence[int], base: int
) -> np.ndarray:
    """A whole table (tokens, lengths) from seconds measured at some (tokens, length).

    What is measured stays as it is; in the base column but for noise: more tokens never take less time.

    The column of the length `base` has all steps in T: it must be measured at every T ≥ base. Below stand the texts of
    T tokens each. In another column a token costs something more or less than in that one, which changes slowly with T:
    it is measured at a few T and interpolated in log T, so that cells that no batch can have (T below the length) have
    a value too. ValueError where the base column has gaps.
    """
    found = []
    for n in tokens:
        where = (n, base) if n >= base else (n, n)
        if where not in measured:
            raise ValueError(f"nothing measured at {where}")
        found.append(measured[where])
    line = rising(np.array(found))
    table = np.empty((len(tokens), len(lengths)))
    for j, length in enumerate(lengths):
        mine = sorted(n for n, other in measured if other == length and n >= base)
        excess = [(measured[n, length] - np.interp(n, tokens, line)) / n for n in mine]
        table[:, j] = line + np.array(tokens) * np.interp(np.log(tokens), np.log(mine), excess)
        for i, n in enumerate(tokens):
            table[i, j] = line[i] if length == base else measured.get((n, length), table[i, j])
    return np.maximum(table, 0)


def leaders(tokens: np.ndarray) -> np.ndarray:
    """Tokens of each batch that enter each layer (n, L) → the number of the batch with which it runs there (n, L).

    A batch of which less than half of what a call's largest batch has is left waits for the next ones, until they would
    be more than that together. Here groups are made layer by layer and are as full as they are on average: going from
    batch to batch, as the engine does, would take a search too long.
    """
    n, n_layers = tokens.shape
    entered = tokens[:, 0]
    calls = (np.cumsum(entered) - entered) // TOGETHER
    starts = np.flatnonzero(np.diff(calls, prepend=-1))
    most = np.repeat(np.maximum.reduceat(entered, starts), np.diff(starts, append=n))
    found = np.empty((n, n_layers), dtype=np.int64)
    found[:, 0] = leading = np.arange(n)
    for layer in range(1, n_layers):
        left = np.bincount(leading, weights=tokens[:, layer], minlength=n)
        few = np.flatnonzero((left > 0) & (2 * left <= most))
        if len(few) > 1:
            joined = np.arange(n)
            joined[few] = _led(few, left[few], most[few], calls[few])
            leading = joined[leading]
        found[:, layer] = leading
    return found


def _led(few: np.ndarray, left: np.ndarray, most: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The first of each one's group; a group ends, half a batch early on average, where the next would be too much."""
    before = np.cumsum(left) - left
    own = before - before[np.searchsorted(calls, calls)]  # tokens that wait before these, in their call
    groups = own // (most - left.mean() / 2)
    first = np.flatnonzero((np.diff(calls, prepend=-1) != 0) | (np.diff(groups, prepend=-1) != 0))
    led: np.ndarray = np.repeat(few[first], np.diff(first, append=len(few)))
    return led


def moved(sums: np.ndarray, leading: np.ndarray) -> np.ndarray:
    """What each batch has in each layer (n, L), at the batch in whose company it runs; others have 0 there."""
    n, n_layers = sums.shape
    cells = leading * n_layers + np.arange(n_layers)
    total = np.bincount(cells.ravel(), weights=sums.ravel(), minlength=n * n_layers)
    found: np.ndarray = total.astype(sums.dtype).reshape(n, n_layers)
    return found


FORMAT_VERSION = 1


@dataclass(frozen=True)
class Conditions:
    """What a profile holds for: any other value of any of these, other seconds."""

    cpu: str  # the processor's name
    cores: int  # that the process may use
    threads: int  # of the engine
    engine: str  # "native" or "torch"
    device: str  # what computes: "cpu", or a GPU's name
    instructions: str  # set of the compiled engine; "" for torch
    dtype: str
    version: str  # of ziggurat
    layers: int
    hidden: int
    intermediate: int
    heads: int  # of attention
    head_kind: str  # of the exits
    n_classes: int
    rung_layers: tuple[int, ...]  # after which each rung stands; the last is `layers`
    max_length: int  # tokens that are read of a text
    pruning: str  # which score prunes tokens, and how they are chosen; "" = the model does not prune


@dataclass(frozen=True)
class Costs:
    """Seconds of each part of a call, each (tokens, lengths) of the profile's grid."""

    call: tuple[tuple[float, ...], ...]  # packing, the call itself, embedding
    layer: tuple[tuple[float, ...], ...]  # any layer but the last, nothing pruned
    last: tuple[tuple[float, ...], ...]  # the last layer and the last rung's head, nothing pruned
    head: tuple[tuple[float, ...], ...]  # one exit head and the decision who leaves
    attention: tuple[tuple[float, ...], ...]  # of a layer that prunes: all that runs on the tokens that enter
    rest: tuple[tuple[float, ...], ...]  # of a layer that prunes: all that runs on the tokens that are left


@dataclass(frozen=True)
class Profile:
    """What the parts of a call cost on one machine; made by `jobs.profiling`, or read from its file."""

    conditions: Conditions
    date: str  # UTC
    tokens: tuple[int, ...]  # T of the grid, rising, from 1
    lengths: tuple[int, ...]  # effective lengths of the grid: 1, 2, 4, …; the last one may be any
    costs: Costs

    def __post_init__(self) -> None:
        powers = tuple(2**i for i in range(len(self.lengths) - 1))
        if len(self.lengths) < 2 or self.lengths[:-1] != powers or self.lengths[-1] <= powers[-1]:
            raise ValueError(f"lengths {self.lengths}: must be 1, 2, 4, …, with a last one above the others")
        if len(self.tokens) < 2 or self.tokens[0] != 1 or min(np.diff(self.tokens)) < 1:
            raise ValueError(f"tokens {self.tokens}: must rise from 1")
        for field in dataclasses.fields(Costs):
            rows = getattr(self.costs, field.name)
            if len(rows) != len(self.tokens) or {len(row) for row in rows} != {len(self.lengths)}:
                wanted = f"{len(self.tokens)} rows of {len(self.lengths)}"
                raise ValueError(f"costs of {field.name}: must be {wanted} seconds")
            if not (np.isfinite(rows) & (np.array(rows) >= 0)).all():
                raise ValueError(f"costs of {field.name}: seconds must be finite and at least 0")

    @property
    def key(self) -> str:
        """Short name of the conditions: what is stored with whatever was chosen by this profile."""
        return key_of(self.conditions)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))  # lists for tuples
        return {"format_version": FORMAT_VERSION} | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "profile") -> Profile:
        """From what `to_dict` gave; UserError that names `where` if anything is missing, wrong or newer."""
        rest = dict(values)
        version = rest.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise UserError(f"{where}: format_version {version!r} is not {FORMAT_VERSION}; measure again")
        return from_mapping(cls, rest, where)

    def seconds(self, part: str, tokens: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Seconds of a field of `Costs` in batches of Σn `tokens` and Σn² `squares`, any shape of ints; 0 for none."""
        grid, logs, values = np.array(self.tokens), np.log2(self.lengths), self._columns[part]
        low, high = (index[np.minimum(tokens, grid[-1] + 1)] for index in self._neighbours)
        log = np.log2(np.maximum(squares, 1) / np.maximum(tokens, 1))
        left = np.minimum(log.astype(np.int64), len(logs) - 2)
        share = (log - logs[left]) / np.diff(logs)[left]
        corners = [row * len(logs) + left for row in (low, high)]
        below, above = (values[at] + (values[at + 1] - values[at]) * share for at in corners)
        found: np.ndarray = below + (above - below) * ((tokens - grid[low]) / (grid[high] - grid[low]))
        return np.maximum(found, 0) * (tokens > 0)

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """Each part's table, row after row."""
        return {field.name: np.array(getattr(self.costs, field.name)).ravel() for field in dataclasses.fields(Costs)}

    @cached_property
    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Between which grid points T = 0, 1, … up to the grid's last lies, and after them any larger T."""
        grid = np.array(self.tokens)
        last = len(grid) - 1
        low = np.clip(np.searchsorted(grid, np.arange(grid[-1] + 1), side="right") - 1, 0, last - 1)
        half = min(last - 1, max(0, int(np.searchsorted(grid, grid[-1] // 2, side="right")) - 1))
        return np.append(low, half), np.append(low + 1, last)


def key_of(conditions: Conditions) -> str:
    """Short hash of the conditions."""
    return hashlib.sha256(json.dumps(dataclasses.asdict(conditions)).encode()).hexdigest()[:12]


def predicted_seconds(
    profile: Profile,
    kept: np.ndarray,
    rungs: np.ndarray,
    asked: Sequence[bool],
    batch_of: np.ndarray,
    pruned: Sequence[bool] | None = None,
) -> float:
    """Seconds of answering a whole data set in these batches, one after the other; arguments as `predicted_batches`."""
    return float(predicted_batches(profile, kept, rungs, asked, batch_of, pruned).sum())


def predicted_batches(
    profile: Profile,
    kept: np.ndarray,
    rungs: np.ndarray,
    asked: Sequence[bool],
    batch_of: np.ndarray,
    pruned: Sequence[bool] | None = None,
) -> np.ndarray:
    """Seconds of each batch, (n_batches) in the order of their numbers; those of joined leftovers at the first of them.

    Row i is in batch `batch_of[i]` and leaves at rung `rungs[i]`; `kept` (n, L + 1) are the tokens that enter layer 1
    and those that each layer leaves, as in `engine.backend.Outcomes` or `AllRungs`: what stands behind a row's rung is
    not charged. `asked` says which rungs' heads are computed. `pruned` (L) says which layers prune, and so need scores;
    None = those where any token leaves. ValueError where the shapes do not fit.
    """
    layers, rung_layers = profile.conditions.layers, np.array(profile.conditions.rung_layers)
    if kept.shape != (len(rungs), layers + 1) or len(batch_of) != len(rungs) or len(asked) != len(rung_layers):
        raise ValueError(f"kept {kept.shape}, {len(rungs)} rungs, {len(batch_of)} batch numbers, {len(asked)} asked")
    if not len(rungs):
        return np.zeros(0)
    alive = np.arange(1, layers + 1) <= rung_layers[rungs][:, None]
    entering = kept[:, :-1] * alive
    leaving = kept[:, 1:] * alive
    prunes = (entering != leaving).any(axis=0) if pruned is None else np.array(pruned, dtype=bool)
    costs = _Batches(profile, batch_of)
    before = costs.sums(entering)
    after = costs.sums(leaving) if prunes.any() else before
    if profile.conditions.engine == "native" and not costs.single:
        leading = leaders(before[0])
        before, after = ((moved(sums[0], leading), moved(sums[1], leading)) for sums in (before, after))
    whole, last = np.flatnonzero(~prunes[:-1]), layers - 1
    total = costs.seconds("call", before, [0]) + costs.seconds("layer", before, whole)
    total += costs.seconds("attention", before, np.flatnonzero(prunes))
    total += costs.seconds("rest", after, np.flatnonzero(prunes))
    total += costs.seconds("head", after, rung_layers[:-1][np.array(asked[:-1], dtype=bool)] - 1)
    # A last layer that prunes works on all tokens; its head is not told apart from the exits', which are as small.
    return total + costs.seconds("head" if prunes[last] else "last", after if prunes[last] else before, [last])


class _Batches:
    """Sums over the rows of each batch, and their costs."""

    def __init__(self, profile: Profile, batch_of: np.ndarray) -> None:
        self._profile = profile
        self._order = None if (np.diff(batch_of) >= 0).all() else np.argsort(batch_of, kind="stable")
        ordered = batch_of if self._order is None else batch_of[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        self.single = len(self._starts) == len(batch_of)

    def sums(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each row and layer (n, L) → Σn and Σn² of each batch and layer, both (n_batches, L)."""
        tokens = tokens if self._order is None else tokens[self._order]
        if self.single:
            return tokens, tokens  # Σn² is never looked at
        return np.add.reduceat(tokens, self._starts, axis=0), np.add.reduceat(tokens * tokens, self._starts, axis=0)

    def seconds(self, part: str, sums: tuple[np.ndarray, np.ndarray], layers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Of one part in these layers (0 … L - 1) together, (n_batches)."""
        if not len(layers):
            return np.zeros(len(self._starts))
        tokens, squares = sums[0][:, layers], sums[1][:, layers]
        if not self.single:
            return self._profile.seconds(part, tokens, squares).sum(axis=1)
        # One text at a time: few different lengths, so each is looked up once.
        lengths = np.arange(int(tokens.max()) + 1)
        found: np.ndarray = self._profile.seconds(part, lengths, lengths * lengths)[tokens].sum(axis=1)
        return found
