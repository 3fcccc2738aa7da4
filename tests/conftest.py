"""Tiny random models, folders and inputs for several rooms' tests. Torch is loaded only where a test asks for it."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Before anything loads torch or a Hugging Face library: matrices this small gain nothing from threads, and no network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import hypothesis
import numpy as np
import pytest

from tests.kit.families import shake
from tests.kit.models import LABELS, LENGTHS, SPECIAL, WORDS, save_checkpoint, tiny_bert

# The same examples in every run: a test that fails now and then is read as noise.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/flow/test_golden.py --regenerate-golden` writes the golden outputs anew."""
    parser.addoption("--regenerate-golden", action="store_true", help="write golden outputs instead of comparing")


@pytest.fixture(scope="module", autouse=True)
def loaded_libraries_are_no_garbage() -> None:
    """Each Trainer collects garbage twice: a second through a million objects of libraries, unless they are frozen."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def make_bert() -> Callable:
    """`tiny_bert`: configuration changes in, a fresh model out."""
    return tiny_bert


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable:
    """`save_checkpoint`: a model and a folder in, the folder out."""
    return save_checkpoint


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory) -> Path:
    """A fine-tuned classifier as Hugging Face saves it. Shared: copy it to change it."""
    return save_checkpoint(tiny_bert(), tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_spec(tiny_checkpoint):
    """The architecture of `tiny_checkpoint`."""
    from ziggurat.encoder import read_config, read_spec

    return read_spec(read_config(tiny_checkpoint))


@pytest.fixture(scope="session")
def make_model(tiny_checkpoint) -> Callable:
    """A function that loads `tiny_checkpoint` with exit heads, the same ones every time, in evaluation mode."""
    import torch

    from ziggurat.encoder import load_hf

    def make(head_kind: str = "fastbert", head_layers: tuple[int, ...] | None = None, pruning=None):
        torch.manual_seed(1)
        model = load_hf(tiny_checkpoint, len(LABELS), head_kind, head_layers, pruning=pruning)
        shake(model.exits)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def make_pruned(make_model) -> Callable:
    """A function that loads the same model with a PruningConfig, every vocabulary entry's score another."""
    import torch

    def make(pruning):
        model = make_model(pruning=pruning)
        if pruning.vocabulary is not None:
            with torch.no_grad():
                model.pruning.vocabulary.copy_(torch.linspace(-1, 3, model.spec.vocabulary).roll(7))
        return model

    return make


@pytest.fixture
def tiny_model(make_model):
    """An encoder of four layers with a FastBERT head after each but the last. The test's own: change it at will."""
    return make_model()


@pytest.fixture(scope="session")
def make_folder(tiny_checkpoint, make_model, make_pruned, tmp_path_factory) -> Callable:
    """A function that saves a finished model folder with operating points; manifest changes in, folder out."""
    from ziggurat.encoder import Manifest, save_model, write_manifest
    from ziggurat.types import OperatingPoint

    def make(head_kind: str = "fastbert", head_layers: tuple[int, ...] = (1, 2, 3), **changes) -> Path:
        folder = tmp_path_factory.mktemp("folder") / "model"
        values = {"labels": LABELS, "pairs": False, "max_length": 24, "fingerprint": "", "training": {"recipe": "none"}}
        manifest = Manifest(head_kind=head_kind, head_layers=head_layers, **values | changes)
        rows = np.array([2**63 + 5, 7, 3], dtype=np.uint64)
        pruning = manifest.pruning
        model = make_model(head_kind, head_layers) if pruning is None else make_pruned(pruning)
        manifest = save_model(model, manifest, rows, tiny_checkpoint, folder)
        n = len(head_layers)
        points = (
            OperatingPoint("balanced", "entropy", (0.3,) * n, manifest.fingerprint, target=0.005, data="d1"),
            OperatingPoint("fast", "margin", (None, *(0.4,) * (n - 1)), manifest.fingerprint, target=0.01),
        )
        write_manifest(dataclasses.replace(manifest, operating_points=points), folder)
        return folder

    return make


@pytest.fixture(scope="session")
def model_folder(make_folder) -> Path:
    """A finished model folder for single texts, at most 24 tokens each. Shared: copy it to change it."""
    return make_folder()


@pytest.fixture(scope="session")
def pruned_folder(make_folder) -> Path:
    """A finished model folder that prunes tokens and leaves some words unread. Shared: copy it to change it."""
    from ziggurat.recipe import PruningConfig

    return make_folder(pruning=PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9))


@pytest.fixture(scope="session")
def make_static(tiny_checkpoint, tmp_path_factory) -> Callable:
    """A function that saves a folder of a random static model; manifest changes in, folder out."""
    from ziggurat.data import TextTokenizer
    from ziggurat.encoder import Manifest
    from ziggurat.small import StaticTier, save_small

    def make(**changes) -> Path:
        folder = tmp_path_factory.mktemp("static") / "model"
        values = {"labels": LABELS, "pairs": False, "max_length": 24, "head_kind": "none", "head_layers": ()}
        manifest = Manifest(**values | {"fingerprint": "", "kind": "static"} | changes)
        rng = np.random.default_rng(0)
        table = rng.integers(-2000, 2001, (256, len(manifest.labels))).astype(np.int16)
        scales = np.full(len(manifest.labels), 1e-3, dtype=np.float32)
        kinds = TextTokenizer(tiny_checkpoint, 24).piece_kinds()
        tier = StaticTier(table, scales, np.zeros_like(scales), kinds)
        save_small(tier, manifest, np.array([11, 7], dtype=np.uint64), tiny_checkpoint, folder)
        return folder

    return make


@pytest.fixture(scope="session")
def static_folder(make_static) -> Path:
    """A folder of a static model with the labels of `model_folder`. Shared: copy it to change it."""
    return make_static()


@pytest.fixture(scope="session")
def cascade_folder(static_folder, pruned_folder, tmp_path_factory) -> Path:
    """A static model in front of one that prunes tokens and leaves early. Shared: copy it to change it."""
    from ziggurat.encoder import write_cascade

    folder = tmp_path_factory.mktemp("cascade") / "model"
    write_cascade([static_folder, pruned_folder], folder)
    return folder


@pytest.fixture(scope="session")
def pair_folder(make_folder) -> Path:
    """A finished model folder for pairs of texts. Shared: copy it to change it."""
    return make_folder(pairs=True)


@pytest.fixture
def copied(tmp_path) -> Callable:
    """A function that copies a shared folder to where the test may spoil it."""
    return lambda folder: Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def random_tokens() -> Callable:
    """A function: lengths and a seed in, one array (length, 2) of token and segment ids for each length out."""

    def make(lengths, seed: int = 0) -> list[np.ndarray]:
        rng = np.random.default_rng(seed)
        ids = len(SPECIAL) + len(WORDS)
        return [np.stack([rng.integers(0, ids, n), np.sort(rng.integers(0, 2, n))], axis=1) for n in lengths]

    return make


@pytest.fixture(scope="session")
def ragged_tokens(random_tokens) -> list[np.ndarray]:
    """Twenty inputs of nasty lengths, two of them the same."""
    tokens = random_tokens(LENGTHS)
    tokens[10] = tokens[4]
    return tokens


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Twenty texts, from one word to more than `model_folder` reads, two of them the same."""
    rng = np.random.default_rng(3)
    made = [" ".join(rng.choice(WORDS, n - 1)) for n in LENGTHS]
    made[10] = made[4]
    return made


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory) -> Path:
    """240 labelled texts as JSON lines; a third of the words belongs to each label, so a tiny model can learn it."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    lines = []
    for label in rng.integers(0, len(LABELS), 240):
        words = rng.choice(WORDS[label :: len(LABELS)], rng.integers(1, 12))
        lines.append(json.dumps({"text": " ".join(words), "label": LABELS[label]}))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory) -> Path:
    """A recipe of both stages that takes seconds."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(
        'name = "tiny"\ndescription = "For tests."\nmax_length = 24\n\n'
        '[[stages]]\nkind = "regular"\nepochs = 12\nlearning_rate = 3e-3\n\n'
        '[[stages]]\nkind = "heads"\nepochs = 2\nlearning_rate = 5e-3\n'
    )
    return path


@pytest.fixture
def unlabelled(rows_file, tmp_path) -> Path:
    """The rows of `rows_file` without their labels."""
    rows = [json.loads(line) for line in rows_file.read_text().splitlines()]
    path = tmp_path / "unlabelled.jsonl"
    path.write_text("".join(json.dumps({"text": row["text"]}) + "\n" for row in rows))
    return path
