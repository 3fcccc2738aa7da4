"""A thousand classes: the same answers packed, compiled and one by one, and how much memory all rungs' logits take."""

from __future__ import annotations

import numpy as np
import pytest

from tests.kit.all_rungs import run_every_rung
from ziggurat import native
from ziggurat.calibrate import StoredRun, families
from ziggurat.data import pack
from ziggurat.engine import answer_all
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.torch import load_backend as load_torch
from ziggurat.engine.replay import replay
from ziggurat.policies import ExitRule, exit_score

MANY = 1000


@pytest.fixture(scope="module")
def folder(make_bert, make_checkpoint, tmp_path_factory):
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model

    made = tmp_path_factory.mktemp("many")
    names = {index: f"class {index}" for index in range(MANY)}
    bert = make_bert(id2label=names, label2id={name: index for index, name in names.items()})
    source = make_checkpoint(bert, made / "source")
    torch.manual_seed(1)
    model = load_hf(source, MANY, "fastbert", None)
    for head in model.exits.values():
        torch.nn.init.normal_(head.classes.weight, std=2.0)
    labels = tuple(names.values())
    save_model(
        model, Manifest(labels, False, 24, "fastbert", (1, 2, 3), ""), np.array([1], np.uint64), source, made / "m"
    )
    return made / "m"


def test_a_thousand_classes_exit_by_top_entropy_in_every_engine(folder, ragged_tokens):
    plain, n = load_torch(folder, "cpu", "float32", None), len(ragged_tokens)
    backends = [plain]
    if not native.why_missing():
        from ziggurat.engine.backends.native import load_backend

        backends.append(load_backend(folder, "float32", 2))
    every = run_every_rung(plain, [pack(ragged_tokens)], n)
    assert every.readings.shape == (n, 4, MANY) and every.readings.dtype == np.float32
    assert every.readings.nbytes == n * 4 * MANY * 4  # 10,000 texts and 6 rungs: 240 MB
    for score in ("top-entropy@5", "entropy", "margin"):
        values = np.unique(exit_score(score).of(every.readings[:, :1]))  # between two of them no rounding decides
        threshold = float(values[len(values) // 2 - 1 : len(values) // 2 + 1].mean())
        rule = ExitRule.uniform(score, threshold, 4)
        logits, rungs = answer_all(plain, ragged_tokens, rule)
        for backend in backends:
            outcomes = run(backend, [pack(ragged_tokens)], rule, n)
            assert outcomes.rungs.tolist() == rungs.tolist() == replay(every.readings, rule).tolist()
            assert np.abs(outcomes.readings - logits).max() < 1e-3
            assert outcomes.readings.argmax(axis=1).tolist() == logits.argmax(axis=1).tolist()
        assert len(set(rungs.tolist())) > 1, score


def test_settings_of_a_thousand_classes_are_tried_like_others(folder, ragged_tokens):
    every = run_every_rung(load_torch(folder, "cpu", "float32", None), [pack(ragged_tokens)], len(ragged_tokens))
    stored = StoredRun(every.readings, every.token_counts, 1.0)
    losses = (stored.predictions() != stored.predictions()[:, -1:]).astype(float)
    found = list(families(stored, losses, np.array([0.7, 0.5, 0.2, 0.0]), ["top-entropy@5"]))
    assert len(found) > 2
    for one in found[1]:
        assert one.rungs.tolist() == replay(every.readings, ExitRule("top-entropy@5", one.thresholds)).tolist()
