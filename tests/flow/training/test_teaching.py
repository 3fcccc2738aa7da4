"""What a teacher says of rows: asked once, the same as if asked in every step."""

import copy
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.training import SPEC, make_examples
from ziggurat.encoder import EncoderModel, SpanModel
from ziggurat.recipe import PruningConfig, Recipe, StageConfig
from ziggurat.training import Examples, Run, Soft, collate, packed, pipeline, run_recipe, with_teacher_logits
from ziggurat.training.objectives import Hard

ALONE = Run(Path("nowhere"), torch.device("cpu"), progress=False, mixed_precision=False)
REGULAR = StageConfig(kind="regular", epochs=1, learning_rate=5e-3, batch_size=8, warmup=0.0)
TAUGHT = dataclasses.replace(REGULAR, kind="hard", distillation=0.5)


def pruned():
    torch.manual_seed(0)
    return EncoderModel(SPEC, 2, "fastbert", [1, 2], PruningConfig(final=0.6))


def batch_of(rows, chosen):
    return collate([rows[int(row)] for row in chosen])


def same(one, other):
    return all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in one.state_dict().items())


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 149), min_size=1, max_size=12), st.integers(0, 3))
def test_a_row_carries_its_teachers_answer_in_any_batch(chosen, seed):
    rows, teacher = make_examples(150, seed), pruned()
    batch = batch_of(with_teacher_logits(teacher, rows, ALONE), chosen)
    with torch.no_grad():
        alone = [
            teacher.full_logits(packed(*(batch_of(rows, [row])[k] for k in ("states", "lengths")))) for row in chosen
        ]
    assert torch.allclose(batch["teacher_logits"], torch.cat(alone), atol=1e-5)


def test_unlabelled_rows_take_their_teachers_answers_along():
    rows = make_examples(40, 1)
    labels = np.where(np.arange(40) % 3 == 0, -1, rows.labels)
    kept = with_teacher_logits(pruned(), Examples(rows.encoded, labels), ALONE).labelled()
    assert np.allclose(kept.teacher_logits, with_teacher_logits(pruned(), kept, ALONE).teacher_logits, atol=1e-5)
    assert len(kept.teacher_logits) == len(kept) == (labels >= 0).sum()


def test_of_spans_a_teacher_says_two_rows_for_each_window(model):
    rows = make_examples(5, 1)
    windows = [np.concatenate([tokens, np.ones((len(tokens), 1), int)], axis=1) for tokens in rows.encoded.tokens]
    spans = Examples(dataclasses.replace(rows.encoded, tokens=windows), np.zeros((5, 2), int))
    assert with_teacher_logits(SpanModel(model.spec, [1]), spans, ALONE).teacher_logits.shape == (5, 2, SPEC.positions)


@pytest.mark.parametrize("objective", [Soft, Hard])
def test_distilling_without_a_teachers_answers_is_an_error(objective):
    batch = batch_of(make_examples(4, 1), range(4))
    with pytest.raises(ValueError, match="have no teacher logits"):
        objective(pruned(), TAUGHT)(**batch)


STAGES = [
    dataclasses.replace(TAUGHT, kind=kind, distillation=share)
    for kind, share in (("soft", 0.5), ("hard", 0.5), ("heads", 1.0))
]


@pytest.fixture
def asked(monkeypatch):
    """Fingerprints of the teachers that were asked, in order."""
    seen = []

    def watched(teacher, rows, *rest):
        seen.append(sum(float(tensor.double().sum()) for tensor in teacher.state_dict().values()))
        return with_teacher_logits(teacher, rows, *rest)

    monkeypatch.setattr(pipeline, "with_teacher_logits", watched)
    return seen


def test_one_teacher_is_asked_once_for_all_stages(asked, train_rows, select_rows, run):
    run_recipe(pruned(), Recipe("x", "", tuple(STAGES)), train_rows, select_rows, run)
    assert len(asked) == 2  # about the rows that train, and about those that select


def test_a_new_plain_model_is_asked_anew(asked, train_rows, select_rows, run):
    soft, *_ = STAGES
    run_recipe(pruned(), Recipe("x", "", (soft, REGULAR, soft)), train_rows, select_rows, run)
    assert len(asked) == 4 and asked[0] != asked[2]


def test_a_resumed_recipe_hears_the_same_of_its_teacher(asked, train_rows, select_rows, run):
    recipe, start = Recipe("x", "", (REGULAR, *STAGES)), pruned()
    folders = [dataclasses.replace(run, folder=run.folder / name) for name in ("unbroken", "resumed")]
    whole = run_recipe(copy.deepcopy(start), recipe, train_rows, select_rows, folders[0])
    run_recipe(
        copy.deepcopy(start), dataclasses.replace(recipe, stages=recipe.stages[:2]), train_rows, select_rows, folders[1]
    )
    assert same(run_recipe(copy.deepcopy(start), recipe, train_rows, select_rows, folders[1]), whole)
    assert len(asked) == 6 and len(set(asked)) == 1
    run_recipe(copy.deepcopy(start), recipe, train_rows, select_rows, folders[1])
    assert len(asked) == 6  # all stages are finished: nobody is asked


APART = """
import sys, numpy, torch
from accelerate import PartialState
from tests.kit.training import make_examples
from tests.flow.training.test_teaching import ALONE, pruned
from ziggurat.training.precomputed import with_teacher_logits

state, teacher, asked = PartialState(cpu=True), pruned(), []
whole = teacher.full_logits
teacher.full_logits = lambda batch: asked.append(batch.n_seqs) or whole(batch)
taught = with_teacher_logits(teacher, make_examples(75, 1), ALONE).teacher_logits
numpy.savez(f"{sys.argv[1]}/{state.process_index}.npz", taught=taught, asked=sum(asked))
"""


def test_processes_share_the_asking_and_all_hear_every_answer(tmp_path):
    (tmp_path / "apart.py").write_text(APART)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        group = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free.getsockname()[1])}
    group |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, tmp_path / "apart.py", tmp_path]
    both = [
        subprocess.Popen(command, env=os.environ | group | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE)
        for rank in ("0", "1")
    ]
    for process in both:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors.decode()
    parts = [np.load(tmp_path / f"{rank}.npz") for rank in range(2)]
    assert sorted(int(part["asked"]) for part in parts) == [37, 38]
    wanted = with_teacher_logits(pruned(), make_examples(75, 1), ALONE).teacher_logits
    assert all(np.allclose(part["taught"], wanted, atol=1e-5) for part in parts)
