"""Golden outputs: JSON values in files, compared with a tolerance; what is volatile is masked by its key."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "flow" / "golden"
RELATIVE, ABSOLUTE = 1e-3, 1e-5  # between processors, backends and orders of addition; answers differ by 1e-6 or so
_MOST_SHOWN = 20
# Keys whose values depend on the clock, the machine or the versions, or on bits of weights.
_VOLATILE = re.compile(
    "second|latency|time_gain|time_ratio|^over$|^versions?$|^python$|^platform$|^cpu$|^cores$|^instructions$|^date$"
    "|^commit$|^fingerprint$|^key$|^profile$|memory"
)
_ROUGH = re.compile("^thresholds$")  # the same in a rough case, beside all numbers with fractions
_COUNTED = re.compile(r"\.(settings|certified)$")  # a few more or less, where two scores are the same but for rounding
_LEFT_OUT = {"warning"}  # of a row of `bench`, there if it was slow


def masked(value: Any, rough: bool = False, key: str = "") -> Any:
    """A JSON value with the volatile parts replaced by the names of their types."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    volatile = value is not None and (_VOLATILE.search(key) or (rough and _ROUGH.search(key)))
    if volatile or (rough and isinstance(value, float)):
        return "<number>" if number else f"<{type(value).__name__}>"
    if isinstance(value, Mapping):
        return {name: masked(part, rough, name) for name, part in value.items() if name not in _LEFT_OUT}
    if isinstance(value, list):
        return [masked(part, rough) for part in value]
    return value


def named(text: str, places: Mapping[str, str]) -> str:
    """Text with paths replaced by the names of their places, the longest first."""
    for name, path in sorted(places.items(), key=lambda place: -len(place[1])):
        text = text.replace(path, name)
    return text


def differences(golden: Any, found: Any, at: str = "") -> Iterator[str]:
    """A line for each place where two JSON values differ."""
    if isinstance(golden, Mapping) and isinstance(found, Mapping):
        for key in golden:
            if key in found:
                yield from differences(golden[key], found[key], _inside(at, key))
            else:
                yield f"{_inside(at, key)}: is gone, was {_short(golden[key])}"
        yield from (f"{_inside(at, key)}: is new, {_short(found[key])}" for key in found if key not in golden)
    elif isinstance(golden, list) and isinstance(found, list):
        if len(golden) != len(found):
            yield f"{at}: {len(found)} items, were {len(golden)}"
        for index, pair in enumerate(zip(golden, found, strict=False)):
            yield from differences(*pair, f"{at}[{index}]")
    elif not _same(golden, found, 0.02 if _COUNTED.search(at) else RELATIVE):
        yield f"{at}: is {_short(found)}, was {_short(golden)}"


def _inside(at: str, key: str) -> str:
    return f"{at}.{key}" if at else key


def _same(golden: Any, found: Any, relative: float) -> bool:
    if type(golden) is not type(found) or isinstance(golden, bool | str | type(None)):
        return type(golden) is type(found) and golden == found
    if isinstance(golden, int) and relative == RELATIVE:
        return golden == found
    return golden == found or math.isclose(golden, found, rel_tol=relative, abs_tol=ABSOLUTE)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 90 else f"{text[:87]}..."


def check(name: str, found: Any, regenerate: bool) -> None:
    """Compares with the file of this name, or writes it. AssertionError lists what differs."""
    path = GOLDEN / f"{name}.json"
    if regenerate:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(_rounded(found), indent=1, ensure_ascii=False) + "\n", "utf-8")
        return
    assert path.is_file(), f"{path.name} is missing; make it with --regenerate-golden and look at it"
    lines = [*differences(json.loads(path.read_text("utf-8")), found)]
    more = f"\n  and {len(lines) - _MOST_SHOWN} more" if len(lines) > _MOST_SHOWN else ""
    shown = "\n  ".join(lines[:_MOST_SHOWN])
    assert not lines, f"not as in golden/{name}.json:\n  {shown}{more}\nmeant so? --regenerate-golden writes it anew"


def _rounded(value: Any) -> Any:
    """Floats with six significant digits."""
    if isinstance(value, Mapping):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_rounded(part) for part in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
