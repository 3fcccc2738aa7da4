"""Measures the cost of the parts of a call on this machine, once per model shape; stored in the user's cache."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from math import ceil
from operator import itemgetter
from pathlib import Path

import numpy as np

from ziggurat.encoder.folder import read_json
from ziggurat.engine.opened import OpenedModel
from ziggurat.errors import UserError
from ziggurat.files import whole_file
from ziggurat.measure.clock import Clock, Timing, interleave
from ziggurat.measure.predicted_time import Conditions, Profile, key_of, typical
from ziggurat.measure.runs import Call, Shape, Way, call_of, costs_of, length_grid, shapes_of, token_grid, ways_of
from ziggurat.policies.prune import KINDS, TokenRule
from ziggurat.system import cpu_name, n_cores

_Group = Mapping[str, Callable[[], object]]  # calls by name; they are timed one after the other
_CACHE = "ZIGGURAT_CACHE"
_MOST_REPEATS = 100
_LEAST_TOKENS = 192  # however slow the machine


@dataclass(frozen=True)
class Effort:
    """The amount of measuring."""

    rounds: int = 5
    seconds_per_call: float = 0.01  # at full depth; batches per call are chosen to take this long
    longest_call: float = 0.15  # seconds of one batch at full depth; beyond, time is linear in tokens


def profile_engine(
    classifier: OpenedModel,
    progress: Callable[[str], None] | None = None,
    effort: Effort = Effort(),
    clock: Clock = time.perf_counter,
) -> Profile:
    """Times the engine on a grid of batch shapes, interleaved, and solves for the parts; it takes a minute or two.

    `progress` gets the name of each call that has ended.
    """
    return profile_beside(classifier, [], progress, effort, clock)[0]


def profile_beside(
    classifier: OpenedModel,
    beside: Sequence[_Group],
    progress: Callable[[str], None] | None = None,
    effort: Effort = Effort(),
    clock: Clock = time.perf_counter,
) -> tuple[Profile, dict[str, Timing]]:
    """As `profile_engine`, with groups of other calls timed in between, because speed drifts within seconds."""
    lengths = length_grid(classifier.manifest.max_length)
    tokens = _tokens(classifier, effort, clock)
    ways = ways_of(classifier)
    repeats: dict[Shape, int] = {}
    calls: dict[Shape, dict[str, Call]] = {}
    for shape in shapes_of(tokens, lengths):
        once = _seconds(classifier, shape, ways[0], clock)
        repeats[shape] = max(1, min(_MOST_REPEATS, ceil(effort.seconds_per_call / max(once, 1e-9))))
        calls[shape] = _calls(classifier, shape, ways, repeats[shape])
    timings = interleave(_spread(list(calls.values()), beside), effort.rounds, progress=progress, clock=clock)
    seconds = {}
    for shape, named in calls.items():
        runs = np.array([timings[name].runs for name in list(named)[1::2]])
        seconds[shape] = typical(runs.T) / repeats[shape]
    costs = costs_of(classifier.spec, ways, seconds, tokens, lengths)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    profile = Profile(conditions_of(classifier), date, tuple(tokens), tuple(lengths), costs)
    return profile, {name: timings[name] for group in beside for name in group}


def conditions_of(classifier: OpenedModel) -> Conditions:
    """The conditions of a profile of this model, as it is opened, on this machine."""
    backend, spec, manifest = classifier.backend, classifier.spec, classifier.manifest
    return Conditions(
        cpu=cpu_name(),
        cores=n_cores(),
        threads=backend.threads,
        engine=backend.engine,
        device=backend.device,
        instructions=getattr(backend, "instructions", ""),
        dtype=backend.dtype,
        version=metadata.version("ziggurat"),
        layers=spec.layers,
        hidden=spec.hidden,
        intermediate=spec.intermediate,
        heads=spec.heads,
        head_kind=manifest.head_kind,
        n_classes=backend.n_classes,
        rung_layers=tuple(backend.rung_layers),
        max_length=manifest.max_length,
        pruning=_pruning(classifier.token_rule),
    )


def mismatch(profile: Profile, classifier: OpenedModel) -> str | None:
    """Describes how a profile's conditions differ from this classifier's; None if they are equal."""
    profiled, present = dataclasses.asdict(profile.conditions), dataclasses.asdict(conditions_of(classifier))
    different = [
        f"{name.replace('_', ' ')} {profiled[name]!r} (here {present[name]!r})"
        for name in profiled
        if profiled[name] != present[name]
    ]
    return ", ".join(different) or None


def profile_file(classifier: OpenedModel) -> Path:
    """File of this classifier's profile: one for each machine, engine, dtype, thread count and model shape.

    In $ZIGGURAT_CACHE, else $XDG_CACHE_HOME/ziggurat, else ~/.cache/ziggurat.
    """
    given, xdg = os.environ.get(_CACHE), os.environ.get("XDG_CACHE_HOME")
    folder = Path(given) if given else Path(xdg or Path.home() / ".cache") / "ziggurat"
    return folder / "profiles" / f"{key_of(conditions_of(classifier))}.json"


def read_profile(path: Path) -> Profile:
    """Reads a profile; UserError that names the file if it is missing or broken."""
    values = read_json(path, f"{path}: no such profile; `ziggurat profile MODEL` measures one")
    return Profile.from_dict(values, str(path))


def load_profile(classifier: OpenedModel) -> Profile | None:
    """The stored profile; None if there is none. UserError that names a broken file."""
    path = profile_file(classifier)
    if not path.exists():
        return None
    try:
        profile = read_profile(path)
    except UserError as error:
        raise UserError(f"{error}; or `ziggurat profile MODEL`, which measures anew") from None
    return None if mismatch(profile, classifier) else profile


def measured_profile(
    classifier: OpenedModel, progress: Callable[[str], None] | None = None, effort: Effort = Effort()
) -> Profile:
    """Measures a profile and writes it to its file, which is replaced."""
    profile = profile_engine(classifier, progress, effort)
    keep_profile(profile, classifier)
    return profile


def keep_profile(profile: Profile, classifier: OpenedModel) -> None:
    """Writes the file of this classifier's profile, which is replaced."""
    with whole_file(profile_file(classifier)) as path:
        path.write_text(json.dumps(profile.to_dict()) + "\n", "utf-8")


def stored_profile(
    classifier: OpenedModel, progress: Callable[[str], None] | None = None, effort: Effort = Effort()
) -> Profile:
    """The stored profile; if it is missing or broken, it is measured and stored."""
    try:
        found = load_profile(classifier)
    except UserError:
        found = None
    return measured_profile(classifier, progress, effort) if found is None else found


def _tokens(classifier: OpenedModel, effort: Effort, clock: Clock) -> Sequence[int]:
    """The token grid, up to the first batch that takes longer than `effort.longest_call` at full depth."""
    backend = classifier.backend
    grid, full = token_grid(backend.engine, backend.threads), ways_of(classifier)[0]
    chosen: list[int] = []
    for n in grid:
        chosen.append(n)
        if n >= _LEAST_TOKENS and _seconds(classifier, Shape(n, 8), full, clock) > effort.longest_call:
            break
    return chosen


def _calls(classifier: OpenedModel, shape: Shape, ways: Sequence[Way], repeats: int) -> dict[str, Call]:
    """Calls by name. Each way has two calls in a row: a warm-up on other texts, which is not counted, and the call.

    The first ten or so batches of a call are slow, whatever their depth. That is negligible for a data set, but would
    dominate a call of a few milliseconds.
    """
    calls = {}
    for way in ways:
        name = f"{shape.tokens} tokens in texts of {shape.length}, {way.name}"
        calls[f"{name}, to settle"] = call_of(classifier, shape, way, repeats, seed=1)
        calls[name] = call_of(classifier, shape, way, repeats)
    return calls


def _spread(first: Sequence[_Group], second: Sequence[_Group]) -> dict[str, Callable[[], object]]:
    """Merges two sequences of groups as evenly as possible; order is kept, and groups are not split."""
    places = [((i + 0.5) / len(groups), group) for groups in (first, second) for i, group in enumerate(groups)]
    return {name: call for _, group in sorted(places, key=itemgetter(0)) for name, call in group.items()}


def _seconds(classifier: OpenedModel, shape: Shape, way: Way, clock: Clock) -> float:
    """Seconds of one batch, after one to warm up."""
    call = call_of(classifier, shape, way, 1)
    call()
    start = clock()
    call()
    return clock() - start


def _pruning(rule: TokenRule | None) -> str:
    if rule is None:
        return ""
    kind = next((name for name, keep in KINDS.items() if keep is rule.keep), rule.keep.__name__)
    return f"{kind} on {rule.score}"
