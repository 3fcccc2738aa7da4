"""Fixed schedules and LengthDrop: what trains, under which rule, and what is refused before anything does."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.kit.training import make_examples
from ziggurat.data import pack
from ziggurat.encoder import EncoderModel
from ziggurat.errors import UserError
from ziggurat.policies import TokenRule, top_share
from ziggurat.recipe import PruningConfig, Recipe, SearchConfig, StageConfig, load_recipe, recipe_folder
from ziggurat.training import accuracy, collate, hard, kl_divergence, packed, refuse_misfits, train_model
from ziggurat.training.checks import refuse_emptying
from ziggurat.training.lengths.drop import LengthDrop, random_shares, smallest_shares
from ziggurat.training.stages import lengthdrop

SHARES = PruningConfig(kind="share", schedule="flat", final=1.0)
RULES = {
    "spatten": PruningConfig(kind="share", per_layer=(None, 0.6, 0.3)),
    "power": PruningConfig(kind="count", score="received-from-others", schedule="geometric", first=6, final=1),
    "manual-thresholds": PruningConfig(final=1.2),
}


@pytest.fixture
def pruned(model):
    """A function: a PruningConfig in, a model of three layers without exits out, which starts as `model` does."""

    def make(config):
        fresh = EncoderModel(model.spec, 2, "fastbert", [], config)
        fresh.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("exits.")}, strict=False)
        return fresh

    return make


def late_rows(n, seed):
    """Rows whose class stands at the second place and not at the first, which no rule ever removes."""
    rows = make_examples(n, seed)
    for tokens, label in zip(rows.encoded.tokens, rows.labels, strict=True):
        tokens[0, 0], tokens[1, 0] = 0, label + 1
    return rows


def whole(rows):
    return collate([rows[i] for i in range(len(rows))])


def right(model, rows, rule):
    batch = whole(rows)
    with torch.no_grad():
        logits = model.eval().full_logits(packed(batch["states"], batch["lengths"]), rule)
    return accuracy(logits.numpy(), rows.labels)


def watch_scored(layer):
    """What enters the attention of a layer that prunes: a list that fills with the lengths of each batch."""
    seen, context = [], layer.scored_context

    def watched(batch, *rest):
        seen.append(batch.lengths)
        return context(batch, *rest)

    layer.scored_context = watched
    return seen


@pytest.mark.parametrize("name", RULES)
def test_hard_learns_under_a_fixed_rule_with_real_removal(name, pruned, stage, run):
    model, train, select = pruned(RULES[name]), late_rows(256, 1), late_rows(64, 2)
    before = model.pruning.values.detach().clone()
    entering = watch_scored(model.encoder.layers[2])
    hard(model, train, select, dataclasses.replace(stage, epochs=6), run)
    assert np.concatenate(entering).mean() < 0.9 * train.encoded.lengths.mean()
    assert right(model, select, model.token_rule) > 0.8
    assert torch.allclose(model.pruning.values, before, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("length_drop", [0.1, 0.5])
def test_random_shares_lie_between_the_smallest_and_the_full(length_drop):
    draws = np.random.default_rng(0)
    drawn = np.stack([random_shares(6, length_drop, draws) for _ in range(500)])
    ratios = drawn / np.concatenate([np.ones((500, 1)), drawn[:, :-1]], axis=1)
    assert (drawn >= smallest_shares(6, length_drop)).all() and (drawn < 1).all()
    assert np.allclose(ratios.mean(axis=0), 1 - length_drop / 2, atol=0.01 + length_drop / 20)
    assert np.allclose(smallest_shares(3, 0.2), [0.8, 0.64, 0.512])


def test_the_loss_is_the_labels_or_the_full_models_answer(pruned, stage, train_rows):
    objective = LengthDrop(pruned(SHARES), dataclasses.replace(stage, kind="lengthdrop", sandwich=3), seed=7)
    # The shares of training without its dropout: only the outermost module may know.
    objective.model.eval()
    objective.training = True
    batch = whole(train_rows)
    rows = packed(batch["states"], batch["lengths"])
    found = objective(**batch)
    with torch.no_grad():
        full = objective.model.full_logits(rows)
        subs = [
            objective.model.full_logits(rows, TokenRule(top_share, shares))
            for shares in [smallest_shares(3, 0.2), *objective.drawn()]
        ]
    expected = functional.cross_entropy(full, batch["labels"]) + sum(kl_divergence(full, sub) for sub in subs)
    assert len(subs) == 4 and all((sub - full).abs().max() > 1e-3 for sub in subs)
    assert found.keys() == {"loss"}
    assert torch.allclose(found["loss"], expected / 5, atol=1e-6)


def test_sub_models_do_not_teach_the_full_one(pruned, stage, train_rows):
    batch, gradients = whole(train_rows), []
    for sandwich in (0, 4):
        objective = LengthDrop(pruned(SHARES), dataclasses.replace(stage, kind="lengthdrop", sandwich=sandwich), seed=7)
        objective.model.eval()
        objective.training = True
        full = []
        classify = objective.model.full_logits

        def watched(rows, rule=None, classify=classify, full=full):
            logits = classify(rows, rule)
            if rule is None:
                logits.retain_grad()
                full.append(logits)
            return logits

        objective.model.full_logits = watched
        objective(**batch)["loss"].backward()
        gradients.append(full[0].grad * (sandwich + 2))
    assert torch.allclose(gradients[0], gradients[1], atol=1e-7) and gradients[0].abs().max() > 0


def test_draws_depend_on_seed_and_step_alone(pruned, stage):
    first, other = (LengthDrop(pruned(SHARES), stage, seed=seed) for seed in (1, 2))
    again = LengthDrop(pruned(SHARES), stage, seed=1)
    torch.rand(5)  # another process has drawn other dropout masks by now
    assert np.array_equal(first.drawn(), again.drawn())
    again.step = 1
    assert not np.array_equal(first.drawn(), again.drawn())
    assert not np.array_equal(first.drawn(), other.drawn())


def test_lengthdrop_learns_for_every_share_and_keeps_the_rule(pruned, stage, run):
    model, train, select = pruned(SHARES), late_rows(256, 1), late_rows(64, 2)
    lengthdrop(model, train, select, dataclasses.replace(stage, epochs=4), run)
    assert torch.equal(model.pruning.values, torch.ones(3))
    for shares in ([1.0, 1.0, 1.0], [0.9, 0.8, 0.7], smallest_shares(3, 0.2)):
        assert right(model, select, TokenRule(top_share, np.array(shares))) > 0.8


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("step", [1, 15])  # 12 steps per epoch, checkpoints at 6, 12, 18, 24
def test_a_killed_lengthdrop_resumes_with_the_same_shares(
    step, pruned, train_rows, select_rows, stage, run, monkeypatch
):
    log, drawn, kill_at = [], LengthDrop.drawn, [None]

    def watched(self):
        if self.step == kill_at[0]:
            raise Killed
        log.append(drawn(self))
        return log[-1]

    def train(folder):
        log.clear()
        return lengthdrop(pruned(SHARES), train_rows, select_rows, stage, dataclasses.replace(run, folder=folder))

    monkeypatch.setattr(LengthDrop, "drawn", watched)
    unbroken = train(run.folder / "unbroken")
    expected = list(log)
    assert len(expected) == 24 and not np.array_equal(expected[0], expected[12])
    kill_at[0] = step
    with pytest.raises(Killed):
        train(run.folder / "broken")
    kill_at[0] = None
    resumed = train(run.folder / "broken")
    assert np.array_equal(log, expected[step // 6 * 6 :])
    assert all(torch.equal(tensor, unbroken.state_dict()[name]) for name, tensor in resumed.state_dict().items())


def recipe_of(kinds, pruning=None, search=None, head_layers=()):
    stages = tuple(StageConfig(kind, 1.0, 1e-3) for kind in kinds)
    return Recipe("mine", "a test", stages, head_layers=head_layers, pruning=pruning, search=search)


@pytest.mark.parametrize(
    ("recipe", "says"),
    [
        (recipe_of(["regular", "hard"]), r"'hard'.*give it a \[pruning\] table"),
        (recipe_of(["regular", "lengthdrop"]), r"'lengthdrop'.*give it a \[pruning\] table"),
        (recipe_of(["regular", "lengthdrop"], PruningConfig()), "'threshold'; set kind = \"share\""),
        (recipe_of(["regular", "lengthdrop"], PruningConfig(kind="count", final=9)), "'count'; set kind = \"share\""),
        (recipe_of(["regular", "soft"], SHARES), "starts with 'hard'"),
        (recipe_of(["regular", "guess"], SHARES), "set score = 'predicted'"),
        (recipe_of(["regular", "heads"]), "name some in head_layers"),
        (recipe_of(["regular", "softer"]), "known: regular, "),
        (recipe_of(["regular"], search=SearchConfig()), r"'mine': \[search\].*kind = \"share\", or leave"),
        (recipe_of(["regular", "hard"], PruningConfig(), SearchConfig()), r"\[search\].*kind = \"share\", or leave"),
        (recipe_of(["hard"], PruningConfig(per_layer=(1.0,) * 4)), "per_layer has 4 values, the model has 3 layers"),
        (recipe_of(["hard"], PruningConfig(final=40, schedule="flat")), "threshold 40 at layer 1.*32 tokens; lower it"),
        (recipe_of(["hard"], PruningConfig(final=1.0, schedule="flat", scale="paper")), "threshold 1 .*; lower it"),
        (
            recipe_of(["hard"], PruningConfig(final=0.25, schedule="flat", scale="ltp-code")),
            "threshold 0.25 .*; lower it",
        ),
        (recipe_of(["hard"], PruningConfig(kind="share", per_layer=(0.5, 0.04, 0.04))), "share 0.04 at layer 2.*raise"),
        (recipe_of(["hard"], PruningConfig(kind="count", per_layer=(9, 1, 1))), "count 1 at layer 2 .*; raise it"),
        (recipe_of(["hard"], PruningConfig(kind="share", final=0.9)), 'shares rise.*schedule = "flat"'),
        (recipe_of(["hard"], PruningConfig(kind="count", per_layer=(5, None, 6))), "counts rise.*falling numbers"),
        (recipe_of(["soft"], PruningConfig(score="predicted")), "predicted scores; put a stage 'guess' before"),
        (recipe_of(["regular", "hard"], PruningConfig(vocabulary=0.5)), "vocabulary; put a stage 'soft' before"),
    ],
)
def test_what_cannot_work_is_refused_with_the_fix(recipe, says, model):
    with pytest.raises(UserError, match=says):
        refuse_misfits(recipe, model.spec)


SHIPPED = sorted(path.name.removesuffix(".toml") for path in recipe_folder().iterdir())
WITH_LAYERS = [name for name in SHIPPED if load_recipe(name).small is None]


@pytest.mark.parametrize("layers", [6, 12])
@pytest.mark.parametrize("name", WITH_LAYERS)
def test_shipped_recipes_fit_encoders_of_6_and_12_layers(name, layers, model):
    sizes = {"layers": layers, "hidden": 384, "heads": 12, "intermediate": 1536, "positions": 512}
    recipe, spec = load_recipe(name), dataclasses.replace(model.spec, **sizes)
    refuse_misfits(recipe, spec)
    # It was looked at: the same recipe with a number too many is refused.
    wrong = PruningConfig(kind="share", per_layer=(1.0,) * (layers + 1))
    stages = (StageConfig("hard", 1.0, 1e-3),)
    with pytest.raises(UserError, match=f"the model has {layers} layers"):
        refuse_misfits(dataclasses.replace(recipe, stages=stages, pruning=wrong, student=None), spec)


@pytest.mark.parametrize(
    ("pruning", "beyond"),
    [
        # Nobody reads the other tokens behind the last layer.
        (PruningConfig(kind="count", per_layer=(9, 5, 1)), {"per_layer": (9, 1, 1)}),
        (PruningConfig(kind="share", per_layer=(0.5, 0.5, 0.0)), {"per_layer": (0.5, 0.0, 0.0)}),
        # A token that receives everything still stays.
        (PruningConfig(final=31.9, schedule="flat"), {"final": 32.0}),
    ],
)
def test_numbers_at_the_border_are_allowed_and_beyond_refused(pruning, beyond, model):
    refuse_misfits(recipe_of(["regular", "hard"], pruning), model.spec)
    with pytest.raises(UserError, match=r"at layer [12]"):
        refuse_misfits(recipe_of(["regular", "hard"], dataclasses.replace(pruning, **beyond)), model.spec)


def test_thresholds_that_no_token_passes_are_refused(pruned):
    tokens = late_rows(16, 3).encoded.tokens
    model = pruned(PruningConfig()).eval()
    with torch.no_grad():
        states = model.embed(pack(tokens))
        scores = model.encoder.layers[0].scored_context(states)[1].numpy()
    highest = float(np.delete(scores, states.cu_seqlens[:-1]).max())
    refuse_emptying(pruned(PruningConfig(per_layer=(0.999 * highest, None, None))), tokens)
    with pytest.raises(UserError, match=r"threshold [\d.]+ at layer 1 leaves nothing but .* 16 texts .*; lower it"):
        refuse_emptying(pruned(PruningConfig(per_layer=(1.001 * highest, None, None))), tokens)
    refuse_emptying(pruned(PruningConfig(per_layer=(None, 1.001 * highest, 1.001 * highest))), tokens)


def test_a_training_is_refused_if_thresholds_empty_its_texts(tiny_checkpoint, rows_file, tmp_path):
    recipe = recipe_of(["hard"], PruningConfig(final=20.0))
    with pytest.raises(UserError, match="threshold 5 at layer 1 leaves nothing"):
        train_model(str(rows_file), tmp_path / "out", recipe, str(tiny_checkpoint))
    assert not list(tmp_path.glob("out*"))
