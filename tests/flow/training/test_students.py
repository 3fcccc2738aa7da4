"""Students: what they start from, what they learn, and that their teacher is none the wiser."""

import copy
import dataclasses
import functools
import math

import numpy as np
import pytest
import torch

from tests.flow.training.test_resume import Killed, same
from tests.kit.training import make_examples
from ziggurat.encoder import EncoderModel
from ziggurat.encoder.torch.attention import score_gap
from ziggurat.errors import UserError
from ziggurat.recipe import PruningConfig, Recipe, StageConfig, StudentConfig
from ziggurat.training import answers_loss, collate, full_accuracy, packed, refuse_misfits, run_recipe, student_spec
from ziggurat.training.losses import cosine_loss, patience_loss, states_loss
from ziggurat.training.stages import distil, theseus
from ziggurat.training.students import Distil, Theseus, make_student, patient_layers, spread_layers, starting_layers

REGULAR = StageConfig("regular", 1, 5e-3, batch_size=8, warmup=0.0)
DISTIL = dataclasses.replace(REGULAR, kind="distil", epochs=2)
THESEUS = dataclasses.replace(REGULAR, kind="theseus", epochs=2)


def recipe_of(student, *stages, **changes):
    settings = {"name": "mine", "description": "a test", "stages": stages or (REGULAR, DISTIL), "student": student}
    return Recipe(**settings | {"head_layers": ()} | changes)


def weights(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed(before, model):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(before[name], tensor)}


def logits_of(model, rows):
    batch = collate([rows[i] for i in range(len(rows))])
    with torch.no_grad():
        return model.eval().full_logits(packed(batch["states"], batch["lengths"]))


@pytest.fixture
def teacher(model):
    """Four layers of width 16 with two heads, nothing else."""
    torch.manual_seed(4)
    return EncoderModel(dataclasses.replace(model.spec, layers=4), 2, "fastbert", []).eval()


@pytest.mark.parametrize(
    ("start", "layers", "taken"),
    [("first", 2, (1, 2)), ("skip", 2, (2, 4)), ("last", 2, (3, 4)), ("skip", 3, (1, 3, 4)), ("last", 4, (1, 2, 3, 4))],
)
def test_a_student_starts_with_the_chosen_layers_of_its_teacher(start, layers, taken, teacher):
    before = weights(teacher)
    student = make_student(teacher, recipe_of(StudentConfig(layers, start)))
    assert starting_layers(start, layers, 4) == taken
    for mine, theirs in enumerate(taken):
        assert same(student.encoder.layers[mine], teacher.encoder.layers[theirs - 1])
    assert same(student.encoder.embeddings, teacher.encoder.embeddings)
    assert same(student.classifier, teacher.classifier)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert not changed(before, teacher)


def test_all_layers_of_the_teacher_make_the_teacher(teacher, select_rows):
    student = make_student(teacher, recipe_of(StudentConfig(4)))
    assert torch.equal(logits_of(student, select_rows), logits_of(teacher, select_rows))


def test_layers_map_as_in_the_papers():
    assert spread_layers(6, 12) == (2, 4, 6, 8, 10, 12)
    assert patient_layers("skip", 6, 12) == (2, 4, 6, 8, 10)
    assert patient_layers("last", 6, 12) == (7, 8, 9, 10, 11)
    assert patient_layers("skip", 3, 6) == (2, 4)
    assert patient_layers("last", 3, 6) == (4, 5)
    assert patient_layers("skip", 3, 12) == (4, 8)
    assert spread_layers(4, 12) == (3, 6, 9, 12)  # TinyBERT: 0-based (i + 1) 3 - 1
    assert spread_layers(4, 6) == (2, 3, 5, 6)  # no whole quotient: rounded, the last stays the last
    assert patient_layers("skip", 1, 12) == patient_layers("last", 1, 12) == ()


def test_a_narrow_student_keeps_the_first_columns_of_every_head(teacher):
    student = make_student(teacher, recipe_of(StudentConfig(2, "skip", hidden=8, intermediate=20)))
    mine, theirs = student.encoder.layers[0], teacher.encoder.layers[1]
    assert student.spec.head_width == 4 and theirs.qkv.weight.shape == (48, 16)
    # Heads of width 8 begin at rows 0 and 8 of queries, 16 and 24 of keys, 32 and 40 of values.
    rows = np.concatenate([start + np.arange(4) for start in (0, 8, 16, 24, 32, 40)])
    assert torch.equal(mine.qkv.weight, theirs.qkv.weight[rows][:, :8])
    assert torch.equal(mine.qkv.bias, theirs.qkv.bias[rows])
    assert torch.equal(mine.out.weight, theirs.out.weight[:8][:, rows[:8]])
    assert torch.equal(mine.up.weight, theirs.up.weight[:20, :8])
    assert torch.equal(mine.down.weight, theirs.down.weight[:8, :20])
    assert torch.equal(mine.output_norm.bias, theirs.output_norm.bias[:8])
    assert torch.equal(student.encoder.embeddings.word.weight, teacher.encoder.embeddings.word.weight[:, :8])
    assert torch.equal(student.classifier.dense.weight, teacher.classifier.dense.weight[:8, :8])
    assert torch.equal(student.classifier.classes.weight, teacher.classifier.classes.weight[:, :8])
    assert torch.equal(student.classifier.classes.bias, teacher.classifier.classes.bias)


@pytest.mark.parametrize(
    ("student", "says"),
    [
        (StudentConfig(5), "layers 5, but the teacher has 4; set layers to at most 4, or start from a larger --model"),
        (StudentConfig(2, hidden=18), "hidden 18, but the teacher has 16"),
        (StudentConfig(2, intermediate=33), "intermediate 33, but the teacher has 32"),
        (StudentConfig(2, hidden=15), "hidden 15 is no multiple of the teacher's 2 attention heads; set hidden = 14"),
    ],
)
def test_a_student_that_does_not_fit_its_teacher_is_refused(student, says, teacher):
    with pytest.raises(UserError, match=says):
        refuse_misfits(recipe_of(student), teacher.spec)
    with pytest.raises(UserError, match=says):
        student_spec(student, teacher.spec)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (recipe_of(None), r"stage 'distil' trains a student; give the recipe a \[student\] table"),
        (recipe_of(StudentConfig(2), REGULAR), "no stage trains its student; add distil or theseus"),
        (
            recipe_of(StudentConfig(2), REGULAR, dataclasses.replace(REGULAR, kind="heads"), DISTIL, head_layers=None),
            "stage 'heads' stands before 'distil'.*put it behind",
        ),
        (recipe_of(StudentConfig(2, hidden=8), REGULAR, THESEUS), "swaps layers .*leave `hidden` out"),
        (recipe_of(StudentConfig(2), head_layers=(2,)), r"head layers \[2\]: the model has 2 layers"),
        (
            recipe_of(StudentConfig(1), REGULAR, DISTIL, dataclasses.replace(REGULAR, kind="heads"), head_layers=None),
            "stage 'heads': the model has no exit heads",
        ),
        (
            recipe_of(StudentConfig(2), pruning=PruningConfig(kind="share", per_layer=(1.0, 0.9, 0.8, 0.7))),
            "per_layer has 4 values, the model has 2 layers",
        ),
    ],
)
def test_stages_that_do_not_fit_a_student_are_refused(recipe, says, teacher):
    with pytest.raises(UserError, match=says):
        refuse_misfits(recipe, teacher.spec)


@pytest.fixture
def checkpoint(teacher, tmp_path):
    """An encoder of two layers of width 8 with the teacher's vocabulary, from elsewhere."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(9)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 20}
    config = BertConfig(vocab_size=40, max_position_embeddings=32, **sizes)
    BertModel(config).save_pretrained(tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


def test_a_student_may_start_from_a_checkpoint_of_its_own(teacher, checkpoint):
    from safetensors.torch import load_file

    config = StudentConfig(2, hidden=8, intermediate=20, checkpoint=str(checkpoint))
    student, theirs = make_student(teacher, recipe_of(config)), load_file(checkpoint / "model.safetensors")
    assert torch.equal(student.encoder.layers[1].down.weight, theirs["encoder.layer.1.output.dense.weight"])
    assert student.classifier.classes.weight.shape == (2, 8)
    with pytest.raises(UserError, match=r"has hidden 8, the recipe's student 16; set hidden = 8 in its \[student\]"):
        refuse_misfits(recipe_of(dataclasses.replace(config, hidden=None)), teacher.spec)
    with pytest.raises(UserError, match="has vocabulary 40, the teacher 50; take a checkpoint that agrees, or leave"):
        refuse_misfits(recipe_of(config), dataclasses.replace(teacher.spec, vocabulary=50))
    with pytest.raises(UserError, match="leave `checkpoint` out"):
        refuse_misfits(recipe_of(StudentConfig(2, checkpoint=str(checkpoint)), REGULAR, THESEUS), teacher.spec)


def test_answers_blend_soft_kl_and_the_labels_that_exist():
    wanted, said = torch.tensor([[2.0, 0.0], [0.0, 4.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    p, q = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))  # at T = 2
    kl = [sum(x * math.log(2 * x) for x in (share, 1 - share)) for share in (p, q)]
    softened = 4 * sum(kl) / 2
    assert answers_loss(wanted, said, torch.tensor([-1, -1]), 2.0, 0.25).item() == pytest.approx(softened)
    assert answers_loss(wanted, said, torch.tensor([-1, 1]), 2.0, 0.25).item() == pytest.approx(
        0.875 * softened + 0.125 * math.log(2)
    )


def test_losses_of_states_are_those_that_a_pencil_finds():
    one, two = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    assert states_loss([one, one], [two, one]).item() == pytest.approx((0 + 0 + 1 + 4) / 4 / 2)
    assert cosine_loss(one, two).item() == pytest.approx(1 - (1 + 0) / 2)
    # Scaled to length 1 the first rows agree, the second are (1, 0) and (0, 1).
    assert patience_loss([one], [two]).item() == pytest.approx(2 / 4)


def test_attention_is_compared_over_pairs_and_heads():
    def qkv(query, key):  # two heads; values do not matter
        return torch.cat([query, key, torch.zeros_like(query)], dim=1)

    draws = torch.Generator().manual_seed(0)
    lengths = np.array([2, 1, 40, 3])
    wide = [torch.randn(46, 8, generator=draws) for _ in range(2)]
    narrow = [torch.randn(46, 4, generator=draws) for _ in range(2)]
    total, start = 0.0, 0
    for n in lengths:
        mine = slice(start, start + n)
        for head in range(2):
            q, k = (side[mine, 4 * head : 4 * head + 4] for side in wide)
            r, s = (side[mine, 2 * head : 2 * head + 2] for side in narrow)
            total += ((q @ k.T / 2 - r @ s.T / 2**0.5) ** 2).sum().item()
        start += n
    gap = score_gap(qkv(*wide), qkv(*narrow), lengths, 2).item()
    assert gap == pytest.approx(total / (2 * (lengths**2).sum()), rel=1e-5)


@pytest.mark.parametrize("part", ["hidden_weight", "attention_weight", "cosine_weight", "patient_weight"])
@pytest.mark.parametrize("hidden", [None, 8])
def test_every_part_adds_its_weight_and_is_zero_for_a_twin(part, hidden, teacher, select_rows):
    batch = collate([select_rows[row] for row in range(8)])

    def loss(student, **parts):
        return Distil(student, dataclasses.replace(DISTIL, **parts), teacher).eval()(**batch)["loss"].item()

    student = make_student(teacher, recipe_of(StudentConfig(2, hidden=hidden)))
    answers, added = loss(student), loss(student, **{part: 1.0})
    assert added > answers
    assert loss(student, **{part: 3.0}) - answers == pytest.approx(3 * (added - answers), rel=1e-4)
    twin = make_student(teacher, recipe_of(StudentConfig(4)))
    assert loss(twin, **{part: 1.0}) == pytest.approx(0.0, abs=1e-6)


def test_a_student_learns_without_labels_and_spares_its_teacher(teacher, train_rows, stage, run):
    unlabelled, select = make_examples(192, 1, labelled=False), make_examples(40, 2, labelled=False)
    recipe = recipe_of(StudentConfig(2))
    student, before = make_student(teacher, recipe), weights(teacher)
    start = student.state_dict()["encoder.embeddings.norm.weight"].clone()

    def agree():
        return (logits_of(student, select).argmax(-1) == logits_of(teacher, select).argmax(-1)).float().mean()

    agreed = agree()
    own = dataclasses.replace(DISTIL, epochs=6, hidden_weight=0.1)
    distil(student, unlabelled, select, own, dataclasses.replace(run, teacher=teacher))
    assert agree() > max(agreed, 0.7)
    assert not changed(before, teacher) and not teacher.training
    assert not torch.equal(start, student.encoder.embeddings.norm.weight)


def test_states_alone_leave_the_classifier_alone(teacher, train_rows, select_rows, run):
    student = make_student(teacher, recipe_of(StudentConfig(2, "skip", hidden=8, intermediate=16)))
    before = weights(student)
    own = dataclasses.replace(DISTIL, answer_weight=0.0, hidden_weight=1.0, attention_weight=1.0)
    distil(student, train_rows, select_rows, own, dataclasses.replace(run, teacher=teacher))
    touched = changed(before, student)
    assert touched and all(name.startswith("encoder.") for name in touched)


def theseus_of(teacher, **changes):
    student = make_student(teacher, recipe_of(StudentConfig(2)))
    with torch.no_grad():
        for parameter in student.encoder.layers.parameters():
            parameter.add_(0.1)
    return Theseus(student, dataclasses.replace(THESEUS, **changes), 0, teacher)


def test_theseus_at_0_is_the_predecessor_at_1_the_successor(teacher, select_rows):
    batch = collate([select_rows[row] for row in range(8)])
    ids = packed(batch["states"], batch["lengths"])
    module = theseus_of(teacher, replacing=0.0)
    module.model.eval()
    assert not module.drawn().any()
    assert torch.equal(module.chain(ids, module.drawn()), teacher.full_logits(ids))
    assert theseus_of(teacher, replacing=1.0).drawn().all()
    assert torch.equal(module.chain(ids, np.ones(2, bool)), module.model.full_logits(ids))
    # The first module is layers 1 and 2 of the teacher: only behind them the student's second layer stands.
    mixed, states = module.chain(ids, np.array([False, True])), teacher.embed(ids)
    for layer in (1, 2):
        states = teacher.layer(layer, states)
    assert torch.equal(mixed, teacher.classifier(module.model.layer(2, states)))
    assert not torch.allclose(mixed, teacher.full_logits(ids))


def test_theseus_rate_is_linear_and_draws_by_seed_and_step(teacher):
    module = theseus_of(teacher, replacing=0.3, replacing_growth=1.4)
    rates = []
    for progress in (0.0, 0.25, 0.5, 0.9):
        module.progress = progress
        rates.append(module.rate)
    assert rates == pytest.approx([0.3, 0.65, 1.0, 1.0])
    module.progress, drawn = 0.0, []
    for module.step in range(400):
        drawn.append(module.drawn())
    assert np.mean(drawn, axis=0) == pytest.approx([0.3, 0.3], abs=0.08)
    assert len({tuple(one) for one in drawn}) == 4  # every module for itself
    again = theseus_of(teacher, replacing=0.3)
    again.step = 399
    assert (again.drawn() == drawn[-1]).all()


@pytest.mark.parametrize("replacing", [0.0, 0.5, 1.0])
def test_theseus_changes_nothing_but_the_successors_layers(replacing, teacher, train_rows, select_rows, run):
    student = make_student(teacher, recipe_of(StudentConfig(2)))
    before, taught = weights(student), weights(teacher)
    own = dataclasses.replace(THESEUS, replacing=replacing, weight_decay=0.0)
    theseus(student, train_rows, select_rows, own, dataclasses.replace(run, teacher=teacher))
    touched = changed(before, student)
    assert all(name.startswith("encoder.layers.") for name in touched)
    assert bool(touched) == (replacing > 0)
    assert not changed(taught, teacher)


@pytest.mark.parametrize("kind", ["distil", "theseus"])
def test_a_recipe_ends_in_a_student_that_learned_the_task(kind, teacher, train_rows, select_rows, run):
    learning = dataclasses.replace(REGULAR, epochs=8)
    growth = {"replacing_growth": 0.5} if kind == "theseus" else {}
    stage = dataclasses.replace(learning, kind=kind, **growth)
    made = run_recipe(teacher, recipe_of(StudentConfig(2), learning, stage), train_rows, select_rows, run)
    assert full_accuracy(teacher, select_rows) > 0.8
    assert full_accuracy(made, select_rows) > 0.8


RECIPES = {
    "patient": recipe_of(
        StudentConfig(2),
        REGULAR,
        dataclasses.replace(DISTIL, patient_weight=10.0, label_weight=0.5, logit_temperature=5.0),
    ),
    "narrow": recipe_of(
        StudentConfig(2, "skip", hidden=8, intermediate=16),
        REGULAR,
        dataclasses.replace(DISTIL, answer_weight=0.0, hidden_weight=1.0, attention_weight=1.0),
        DISTIL,
    ),
    "theseus": recipe_of(StudentConfig(2), REGULAR, dataclasses.replace(THESEUS, replacing_growth=0.5)),
    "exits and pruning": recipe_of(
        StudentConfig(2),
        REGULAR,
        DISTIL,
        dataclasses.replace(REGULAR, kind="hard", distillation=0.5),
        dataclasses.replace(REGULAR, kind="heads"),
        head_layers=None,
        pruning=PruningConfig(kind="share", schedule="flat", final=0.8),
    ),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_killed_student_recipe_ends_like_an_unbroken_one(name, teacher, train_rows, select_rows, run, monkeypatch):
    recipe = RECIPES[name]
    starts = [copy.deepcopy(teacher) for _ in range(3)]
    unbroken = run_recipe(
        starts[0], recipe, train_rows, select_rows, dataclasses.replace(run, folder=run.folder / "unbroken")
    )
    assert unbroken.spec.layers == 2
    with monkeypatch.context() as patch, pytest.raises(Killed):
        for kind in (Distil, Theseus):  # 12 steps per epoch, checkpoints at 6, 12, 18, 24
            kill_in_training(kind, 16, patch)
        run_recipe(starts[1], recipe, train_rows, select_rows, run)
    assert (run.folder / "1-regular" / "finished.safetensors").exists()
    assert same(run_recipe(starts[2], recipe, train_rows, select_rows, run), unbroken)


def kill_in_training(kind, step, patch):
    forward, steps = kind.forward, []

    @functools.wraps(forward)  # the Trainer looks at its parameters
    def watched(self, *inputs, **named):
        steps.extend([1] * self.training)
        if len(steps) == step:
            raise Killed
        return forward(self, *inputs, **named)

    patch.setattr(kind, "forward", watched)


def test_a_students_exits_and_pruning_are_its_own(teacher, train_rows, select_rows, run):
    made = run_recipe(copy.deepcopy(teacher), RECIPES["exits and pruning"], train_rows, select_rows, run)
    assert made.head_layers == (1,) and len(made.pruning.values) == 2
    assert full_accuracy(made, select_rows) > 0.6
