"""Spoilt folders, some hundreds of them: one line each, and never another answer unless the manifest vouches for it."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.kit.vouching import vouch
from ziggurat.encoder import CONFIG, EXTRAS, MANIFEST, TOKENIZER, WEIGHTS
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError

pytestmark = pytest.mark.proof

MUTANTS = 200  # of each kind
VALUES = [None, True, -1, 0, 1, 7, 1.5, 1e308, float("nan"), 10**30, 2**31, 2**63, "", "x", "../..", "/", "a" * 9999]
VALUES += [[], {}, [None], [[]], {"a": 1}, [0.5], [3, 2, 1], [1, 1], "static", "regression", "\ud800", "DEEP", "LONG"]


def dumps(value) -> bytes:
    """As JSON; two words become what no Python value is written as."""
    text = json.dumps(value).replace('"LONG"', "9" * 5000).replace('"DEEP"', "[" * 9000 + "]" * 9000)
    return text.encode()


def places(value, at=()):
    """Paths to everything inside of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield (*at, key)
        yield from places(one, (*at, key))


def other_values(rng: random.Random, value) -> bytes:
    """The same JSON with one value that is another, or is not there."""
    value = copy.deepcopy(value)
    *way, last = rng.choice([*places(value)])
    holder = value
    for key in way:
        holder = holder[key]
    if rng.random() < 0.2:
        del holder[last]
    elif rng.random() < 0.2:
        holder[last] = [copy.deepcopy(holder[last])] * 2
    else:
        holder[last] = rng.choice(VALUES)
    return dumps(value)


def other_bytes(rng: random.Random, content: bytes) -> bytes:
    """The same file with a flipped bit, an end that is missing, or a few bytes that are others, more or fewer."""
    at, n = rng.randrange(len(content)), rng.choice([1, 4, 100])
    flipped = bytes([content[at] ^ 1 << rng.randrange(8)])
    return rng.choice(
        [
            content[:at] + flipped + content[at + 1 :],
            content[:at],
            content[:at] + rng.randbytes(n) + content[at:],
            content[:at] + content[at + n :],
            content[:at] + bytes(n) + content[at + n :],
        ]
    )


def spoil(rng: random.Random, path: Path) -> None:
    content = path.read_bytes()
    if rng.random() < 0.3:
        path.write_bytes(other_bytes(rng, content))
    elif path.suffix == ".json":
        path.write_bytes(other_values(rng, json.loads(content)))
    else:
        size = int.from_bytes(content[:8], "little")
        header = other_values(rng, json.loads(content[8 : 8 + size]))
        path.write_bytes(len(header).to_bytes(8, "little") + header + content[8 + size :])


def answers(folder: Path):
    model = OpenedModel.from_pretrained(folder, "cpu", threads=1)
    points = ["full", *(point.name for point in model.manifest.operating_points)]
    return {p: [(a.label, a.probabilities.tolist()) for a in model.answer(["bat kin", "zz lo"], p)] for p in points}


@pytest.mark.parametrize("vouched", [False, True], ids=["by accident", "on purpose"])
def test_a_spoilt_folder_is_one_line_or_answers_as_before(pruned_folder, cascade_folder, tmp_path, vouched):
    bases = [pruned_folder, cascade_folder]
    known = [answers(base) for base in bases]
    rng, found = random.Random(int(vouched)), Counter()
    # What the tokenizers library makes of files that a manifest vouches for is tested with the tokenizer.
    names = [MANIFEST, MANIFEST, CONFIG, WEIGHTS, EXTRAS] + [TOKENIZER] * (not vouched)
    for number in range(MUTANTS):
        which = number % 2
        folder = Path(shutil.copytree(bases[which], tmp_path / str(which), dirs_exist_ok=True))
        part = rng.choice([folder, *folder.glob("tiers/*")])
        path = part / rng.choice(names)
        if not path.exists():
            continue
        spoil(rng, path)
        try:
            for at in {part, folder} if vouched else ():
                vouch(at)
        except (UserError, ValueError, RecursionError, AttributeError, TypeError):  # not even a manifest any more
            pass
        try:
            said = answers(folder)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            found["refused"] += 1
        else:
            found["answered"] += 1
            assert vouched or said == known[which], f"mutant {number} of {path}"
            assert all(np.isfinite(p).all() for point in said.values() for _, p in point)
    assert found["refused"] > MUTANTS / 2 and found["answered"] > 0
