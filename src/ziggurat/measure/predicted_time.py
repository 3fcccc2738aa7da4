"""Measured cost: seconds of the parts of a call on one machine, from which the time of a data set is predicted.

A `Profile` holds the seconds of each part of a call, for one machine, engine and model shape. Its grid has two axes:
live tokens T, and the effective length Σn² / Σn of the texts in the batch. Attention is quadratic, so T tokens of
effective length e cost T·e. Between grid points seconds are linear in T and in log e. Beyond the last T they follow the
line from about half of it. It must be fast, so it uses numpy alone: a search predicts thousands of times.
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

_ROUNDS = 20  # of iterative reweighting


def nonnegative(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Least squares x ≥ 0 of `weights` (m) * (`rows` (m, k) @ x - `wanted` (m)): (k).

    Tries all subsets of entries that may be nonzero; there are few. If x is not unique, a small one is returned.
    """
    rows, wanted = rows * weights[:, None], wanted * weights
    k = rows.shape[1]
    best, least = np.zeros(k), float((wanted**2).sum())
    for size in range(k, 0, -1):
        for subset in map(list, combinations(range(k), size)):
            found = np.linalg.lstsq(rows[:, subset], wanted, rcond=None)[0]
            error = float(((rows[:, subset] @ found - wanted) ** 2).sum())
            if (found >= 0).all() and error < least * (1 - 1e-9):
                best, least = np.zeros(k), error
                best[subset] = found
    return best


def nonnegative_line(rows: np.ndarray, wanted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """As `nonnegative`, with absolute errors instead of squares, so that a few disturbed timings matter little."""
    found = nonnegative(rows, wanted, weights)
    for _ in range(_ROUNDS):
        errors = weights * np.abs(rows @ found - wanted)
        found = nonnegative(rows, wanted, weights / np.sqrt(np.maximum(errors, 1e-3 * errors.max() + 1e-300)))
    return found


def rising(values: np.ndarray) -> np.ndarray:
    """The nearest values (k) ≥ 0 that never fall: falling neighbours are replaced by their mean."""
    blocks: list[tuple[float, int]] = []  # mean, count
    for value in values.tolist():
        mean, count = max(value, 0.0), 1
        while blocks and blocks[-1][0] > mean:
            before, more = blocks.pop()
            mean, count = (before * more + mean * count) / (more + count), more + count
        blocks.append((mean, count))
    return np.repeat([mean for mean, _ in blocks], [count for _, count in blocks])


def typical(runs: np.ndarray) -> np.ndarray:
    """Seconds (rounds, k) of k calls, timed one after the other in each round → typical seconds (k) of each call.

    The median of the rounds' sums is divided by the median shares. A slowdown of a whole round does not change shares.
    """
    sums = runs.sum(axis=1)
    shares = np.median(runs / sums[:, None], axis=0)
    typical: np.ndarray = np.median(sums) * shares / shares.sum()
    return typical


def completed(
    measured: Mapping[tuple[int, int], float], tokens: Sequence[int], lengths: Sequence[int], base: int
) -> np.ndarray:
    """The full table (tokens, lengths), from seconds that were measured at a few (tokens, length).

    Measured values are kept. Only in the base column noise is removed, so that more tokens never take less time.

    The column of the length `base` has all steps in T, so it must be measured at all T ≥ base. For smaller T it has one
    text of T tokens. In other columns a token costs more or less than in the base column. This difference changes
    slowly with T, so it is measured at a few T and interpolated in log T. That also fills cells that no batch can have
    (T below the length). ValueError if the base column has gaps.
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
        known = sorted(n for n, other in measured if other == length and n >= base)
        excess = [(measured[n, length] - np.interp(n, tokens, line)) / n for n in known]
        table[:, j] = line + np.array(tokens) * np.interp(np.log(tokens), np.log(known), excess)
        for i, n in enumerate(tokens):
            table[i, j] = line[i] if length == base else measured.get((n, length), table[i, j])
    return np.maximum(table, 0)


def leaders(tokens: np.ndarray) -> np.ndarray:
    """Tokens of each batch that enter each layer (n, L) → index of the batch into which it is merged there (n, L).

    The engine holds back a batch with at most half the tokens of the call's largest batch. It merges it with later ones
    up to the size of the largest batch. This function approximates the groups layer by layer, with their average fill.
    An exact simulation, batch by batch, would be too slow for a search.
    """
    n, n_layers = tokens.shape
    entered = tokens[:, 0]
    calls = (np.cumsum(entered) - entered) // TOGETHER
    starts = np.flatnonzero(np.diff(calls, prepend=-1))
    most = np.repeat(np.maximum.reduceat(entered, starts), np.diff(starts, append=n))
    found = np.empty((n, n_layers), dtype=np.int64)
    found[:, 0] = leading = np.arange(n)
    for layer in range(1, n_layers):
        remaining = np.bincount(leading, weights=tokens[:, layer], minlength=n)
        few = np.flatnonzero((remaining > 0) & (2 * remaining <= most))
        if len(few) > 1:
            joined = np.arange(n)
            joined[few] = _group_leaders(few, remaining[few], most[few], calls[few])
            leading = joined[leading]
        found[:, layer] = leading
    return found


def _group_leaders(few: np.ndarray, remaining: np.ndarray, most: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """First batch of each batch's group. A group ends before it would overflow: half a batch early on average."""
    before = np.cumsum(remaining) - remaining
    waiting = before - before[np.searchsorted(calls, calls)]  # waiting tokens before each batch, within its call
    groups = waiting // (most - remaining.mean() / 2)
    first = np.flatnonzero((np.diff(calls, prepend=-1) != 0) | (np.diff(groups, prepend=-1) != 0))
    leading: np.ndarray = np.repeat(few[first], np.diff(first, append=len(few)))
    return leading


def moved(sums: np.ndarray, leading: np.ndarray) -> np.ndarray:
    """Sums (n, L) of each batch and layer, added up at the batch into which it is merged; 0 elsewhere."""
    n, n_layers = sums.shape
    cells = leading * n_layers + np.arange(n_layers)
    total = np.bincount(cells.ravel(), weights=sums.ravel(), minlength=n * n_layers)
    found: np.ndarray = total.astype(sums.dtype).reshape(n, n_layers)
    return found


FORMAT_VERSION = 1


@dataclass(frozen=True)
class Conditions:
    """The conditions of a profile. It is not valid if any of them differs."""

    cpu: str  # the processor's name
    cores: int  # available to the process
    threads: int  # of the engine
    engine: str  # "native" or "torch"
    device: str  # "cpu", or a GPU's name
    instructions: str  # set of the compiled engine; "" for torch
    dtype: str
    version: str  # of ziggurat
    layers: int
    hidden: int
    intermediate: int
    heads: int  # of attention
    head_kind: str  # of the exits
    n_classes: int
    rung_layers: tuple[int, ...]  # layer of each rung; the last is `layers`
    max_length: int  # largest number of tokens per text
    pruning: str  # the pruning rule and its score; "" = the model does not prune


@dataclass(frozen=True)
class Costs:
    """Seconds of each part of a call, each (tokens, lengths) of the profile's grid."""

    call: tuple[tuple[float, ...], ...]  # packing, the call itself, embedding
    layer: tuple[tuple[float, ...], ...]  # any layer but the last, nothing pruned
    last: tuple[tuple[float, ...], ...]  # the last layer and the last rung's head, nothing pruned
    head: tuple[tuple[float, ...], ...]  # one exit head, and the decision which inputs exit
    attention: tuple[tuple[float, ...], ...]  # of a layer that prunes: operations on the tokens that enter
    rest: tuple[tuple[float, ...], ...]  # of a layer that prunes: operations on the remaining tokens


@dataclass(frozen=True)
class Profile:
    """Cost of the parts of a call on one machine; measured by `ziggurat.measure.profile`, or read from a file."""

    conditions: Conditions
    date: str  # UTC
    tokens: tuple[int, ...]  # T of the grid, rising, from 1
    lengths: tuple[int, ...]  # effective lengths of the grid: 1, 2, 4, …, and any last one
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
        """Short hash of the conditions, stored with all settings that were chosen with this profile."""
        return key_of(self.conditions)

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        values: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))  # lists for tuples
        return {"format_version": FORMAT_VERSION} | values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "profile") -> Profile:
        """Inverse of `to_dict`; UserError that names `where` if a value is missing, wrong or newer."""
        rest = dict(values)
        version = rest.pop("format_version", None)
        if version != FORMAT_VERSION:
            raise UserError(f"{where}: format_version {version!r} is not {FORMAT_VERSION}; measure again")
        return from_mapping(cls, rest, where)

    def seconds(self, part: str, tokens: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """Seconds of a field of `Costs` for batches of Σn `tokens` and Σn² `squares`, any shape of ints; 0 if empty."""
        grid, logs, values = np.array(self.tokens), np.log2(self.lengths), self._columns[part]
        low, high = (index[np.minimum(tokens, grid[-1] + 1)] for index in self._neighbours)
        log = np.log2(np.maximum(squares, 1) / np.maximum(tokens, 1))
        lower = np.minimum(log.astype(np.int64), len(logs) - 2)
        share = (log - logs[lower]) / np.diff(logs)[lower]
        corners = [row * len(logs) + lower for row in (low, high)]
        below, above = (values[at] + (values[at + 1] - values[at]) * share for at in corners)
        found: np.ndarray = below + (above - below) * ((tokens - grid[low]) / (grid[high] - grid[low]))
        return np.maximum(found, 0) * (tokens > 0)

    @cached_property
    def _columns(self) -> dict[str, np.ndarray]:
        """The table of each part, flattened by rows."""
        return {field.name: np.array(getattr(self.costs, field.name)).ravel() for field in dataclasses.fields(Costs)}

    @cached_property
    def _neighbours(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper grid index for T = 0, 1, … up to the grid's last, then for all larger T."""
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
    token_counts: np.ndarray,
    rungs: np.ndarray,
    active: Sequence[bool],
    batch_of: np.ndarray,
    pruned: Sequence[bool] | None = None,
) -> float:
    """Seconds of answering a data set in these batches, one after the other; arguments as `predicted_batches`."""
    return float(predicted_batches(profile, token_counts, rungs, active, batch_of, pruned).sum())


def predicted_batches(
    profile: Profile,
    token_counts: np.ndarray,
    rungs: np.ndarray,
    active: Sequence[bool],
    batch_of: np.ndarray,
    pruned: Sequence[bool] | None = None,
) -> np.ndarray:
    """Seconds of each batch, (n_batches), in the order of their indices. Merged batches count at the first of them.

    Row i is in batch `batch_of[i]` and exits at rung `rungs[i]`. `token_counts` (n, L + 1) are the tokens that enter
    layer 1, then the tokens after each layer, as in `engine.backend.Outcomes` or `AllRungs`; counts after a row's rung
    are not charged. `active` are the rungs whose heads are computed. `pruned` (L) are the layers that prune, and so
    compute scores; None = those that drop tokens. ValueError if the shapes do not fit.
    """
    layers, rung_layers = profile.conditions.layers, np.array(profile.conditions.rung_layers)
    if token_counts.shape != (len(rungs), layers + 1) or len(batch_of) != len(rungs) or len(active) != len(rung_layers):
        raise ValueError(
            f"counts {token_counts.shape}, {len(rungs)} rungs, {len(batch_of)} batches, {len(active)} active"
        )
    if not len(rungs):
        return np.zeros(0)
    alive = np.arange(1, layers + 1) <= rung_layers[rungs][:, None]
    entering = token_counts[:, :-1] * alive
    leaving = token_counts[:, 1:] * alive
    prunes = (entering != leaving).any(axis=0) if pruned is None else np.array(pruned, dtype=bool)
    costs = _Batches(profile, batch_of)
    before = costs.sums(entering)
    after = costs.sums(leaving) if prunes.any() else before
    if profile.conditions.engine == "native" and not costs.single:
        leading = leaders(before[0])
        before, after = ((moved(sums[0], leading), moved(sums[1], leading)) for sums in (before, after))
    plain, last = np.flatnonzero(~prunes[:-1]), layers - 1
    total = costs.seconds("call", before, [0]) + costs.seconds("layer", before, plain)
    total += costs.seconds("attention", before, np.flatnonzero(prunes))
    total += costs.seconds("rest", after, np.flatnonzero(prunes))
    total += costs.seconds("head", after, rung_layers[:-1][np.array(active[:-1], dtype=bool)] - 1)
    # If the last layer prunes, it is charged in its parts, and its head like an exit head, which is as small.
    return total + costs.seconds("head" if prunes[last] else "last", after if prunes[last] else before, [last])


class _Batches:
    """Token sums of each batch, and their costs."""

    def __init__(self, profile: Profile, batch_of: np.ndarray) -> None:
        self._profile = profile
        self._order = None if (np.diff(batch_of) >= 0).all() else np.argsort(batch_of, kind="stable")
        ordered = batch_of if self._order is None else batch_of[self._order]
        self._starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
        self.single = len(self._starts) == len(batch_of)

    def sums(self, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Tokens of each row and layer (n, L) → Σn and Σn² of each batch and layer, (n_batches, L) each."""
        tokens = tokens if self._order is None else tokens[self._order]
        if self.single:
            return tokens, tokens  # Σn² is not used
        return np.add.reduceat(tokens, self._starts, axis=0), np.add.reduceat(tokens * tokens, self._starts, axis=0)

    def seconds(self, part: str, sums: tuple[np.ndarray, np.ndarray], layers: Sequence[int] | np.ndarray) -> np.ndarray:
        """Seconds of one part, summed over these layers (0 … L - 1), (n_batches)."""
        if not len(layers):
            return np.zeros(len(self._starts))
        tokens, squares = sums[0][:, layers], sums[1][:, layers]
        if not self.single:
            return self._profile.seconds(part, tokens, squares).sum(axis=1)
        # One text per batch has few different lengths, so each is computed once.
        lengths = np.arange(int(tokens.max()) + 1)
        found: np.ndarray = self._profile.seconds(part, lengths, lengths * lengths)[tokens].sum(axis=1)
        return found
