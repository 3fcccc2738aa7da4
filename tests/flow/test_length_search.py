"""From rows to a model with searched shares, and the fixed schedules as whole recipes."""

import dataclasses
import json

import numpy as np
import pytest

from ziggurat.calibrate import choose as choosing
from ziggurat.cli.training import training_text
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.encoder import load_model, read_manifest, with_pruning_values
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule, without_repeats
from ziggurat.recipe import PruningConfig, Recipe, SearchConfig, StageConfig, load_recipe
from ziggurat.training import TrainOptions, adapt_model, on_grid, train_model
from ziggurat.training.lengths import search as length_search
from ziggurat.training.lengths import trials as length_trials
from ziggurat.training.lengths.search import sample, search_lengths
from ziggurat.training.lengths.trials import Trials

QUIET = TrainOptions(device="cpu", progress=False, mixed_precision=False)
SEARCH = SearchConfig(iterations=2, population=4, mutations=3, crossovers=3, max_drop=0.05, rows=16)


def quick(name, **changes):
    """A shipped recipe that takes seconds: its own stages and rule, more haste."""
    recipe = load_recipe(name)
    stages = tuple(dataclasses.replace(stage, epochs=4, learning_rate=3e-3) for stage in recipe.stages)
    return dataclasses.replace(recipe, stages=stages, max_length=24, grouped=False, **changes)


def roles_of(rows_file):
    return split_roles(load(str(rows_file)), Fractions(), grouped=False)


def outcomes(classifier, rows, tokens):
    encoded = classifier.encode(rows.texts)
    rule = dataclasses.replace(ExitRule.full_depth(len(classifier.rungs)), tokens=tokens)
    found = classifier.run(encoded, rule)
    flops = classifier.flops(encoded, found.token_counts, rule)[:, -1].sum() / classifier.full_flops(encoded).sum()
    return found, float(flops), float((found.predictions == rows.labels).mean())


@pytest.fixture(scope="module")
def searched(rows_file, tiny_checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("searched") / "model"
    recipe = quick("lat", search=SEARCH)
    return out, train_model(str(rows_file), out, recipe, str(tiny_checkpoint), QUIET)


def test_the_stored_front_is_what_running_its_shares_gives(searched, rows_file):
    classifier = OpenedModel.from_pretrained(searched[0])
    rows = sample(roles_of(rows_file)[Role.SELECT], 16)
    found = classifier.manifest.training["search"]
    assert found == json.loads(json.dumps(searched[1].search.to_dict())) and found["rows"] == len(rows) == 16
    assert len(found["front"]) >= 2
    for candidate in found["front"]:
        tokens = dataclasses.replace(classifier.token_rule, values=np.array(candidate["shares"]))
        _, flops, accuracy = outcomes(classifier, rows, tokens)
        assert (candidate["flops"], candidate["accuracy"]) == pytest.approx((flops, accuracy))


def test_the_cheapest_shares_within_the_target_become_the_models(searched, rows_file):
    classifier = OpenedModel.from_pretrained(searched[0])
    found = classifier.manifest.training["search"]
    within = [one for one in found["front"] if one["accuracy"] >= found["full_accuracy"] - 0.05 - 1e-12]
    assert found["chosen"] == min(within, key=lambda one: one["flops"]) and found["chosen"]["flops"] < 1
    expected = without_repeats(np.array(found["chosen"]["shares"]))
    assert np.array_equal(classifier.token_rule.values, expected, equal_nan=True)
    rows = sample(roles_of(rows_file)[Role.SELECT], 16)
    kept, flops, _ = outcomes(classifier, rows, classifier.token_rule)
    assert flops == pytest.approx(found["chosen"]["flops"])
    assert (kept.token_counts[:, -1] < kept.token_counts[:, 0]).any()


def test_people_are_told_what_was_chosen(searched):
    chosen = searched[1].search.chosen
    says = f"{chosen.flops:.0%} of the FLOPs, accuracy {chosen.accuracy:.4f}"
    assert f"chosen on 16 select rows: {says}" in training_text(searched[1])
    assert "shares" not in training_text(dataclasses.replace(searched[1], search=None))


def test_points_are_chosen_for_the_searched_model(searched):
    manifest = load_model(searched[0])[1]  # it compares the fingerprint
    assert {point.fingerprint for point in manifest.operating_points} == {manifest.fingerprint}
    assert [path.name for path in searched[0].parent.iterdir()] == ["model"]


@pytest.mark.parametrize("home", ["evolve", "choose_points"])
def test_a_stop_before_or_after_the_search_changes_no_result(
    home, searched, rows_file, tiny_checkpoint, tmp_path, monkeypatch
):
    def train():
        recipe = quick("lat", search=SEARCH)
        return train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)

    def stop(*_, **__):
        raise KeyboardInterrupt

    place = length_search if home == "evolve" else choosing
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, home, stop)
        train()
    assert not (tmp_path / "model").exists()
    if home == "choose_points":  # the search is done, and not done again
        monkeypatch.setattr(length_search, "evolve", stop)
    assert train().search == searched[1].search
    assert read_manifest(tmp_path / "model").fingerprint == read_manifest(searched[0]).fingerprint


@pytest.mark.parametrize("reads_all", [True, False])
def test_what_shares_cost_is_known_without_running_them(reads_all, searched, rows_file):
    classifier, rows = OpenedModel.from_pretrained(searched[0]), roles_of(rows_file)[Role.SELECT]
    draws = np.random.default_rng(0)
    reads = None if reads_all else draws.random(classifier.tokenizer.n_ids()) < 0.7
    rule = dataclasses.replace(classifier.token_rule, vocabulary=reads)
    trials = Trials(classifier, rule, rows)
    for _ in range(5):
        shares = on_grid(np.cumprod(draws.uniform(0.5, 1, classifier.spec.layers)))
        run = outcomes(classifier, rows, dataclasses.replace(rule, values=np.array(shares)))
        assert trials.flops(shares) == pytest.approx(run[1])


def test_a_stop_during_the_search_asks_nothing_twice(searched, rows_file, tmp_path, monkeypatch):
    classifier, rows = OpenedModel.from_pretrained(searched[0]), roles_of(rows_file)[Role.SELECT]
    whole, answer, asked = search_lengths(classifier, rows, SEARCH), Trials._answer, []

    def counted(self, shares, beaten):
        if len(asked) == 6:
            asked.append("stopped")
            raise KeyboardInterrupt
        asked.append(shares)
        return answer(self, shares, beaten)

    monkeypatch.setattr(Trials, "_answer", counted)
    with pytest.raises(KeyboardInterrupt):
        search_lengths(classifier, rows, SEARCH, memory=tmp_path / "search.json")
    assert search_lengths(classifier, rows, SEARCH, memory=tmp_path / "search.json") == whole
    assert len(set(asked)) == len(asked)  # nobody twice


def test_dropping_hopeless_candidates_finds_the_same(searched, rows_file, monkeypatch):
    classifier, rows = OpenedModel.from_pretrained(searched[0]), roles_of(rows_file)[Role.SELECT]
    answer, run, answered = Trials._answer, OpenedModel.run, []

    def counted(self, encoded, *rest):
        answered.append(len(encoded))
        return run(self, encoded, *rest)

    monkeypatch.setattr(length_trials, "_BATCH", 4)
    monkeypatch.setattr(OpenedModel, "run", counted)
    found, few = search_lengths(classifier, rows, SEARCH), sum(answered)
    monkeypatch.setattr(Trials, "_answer", lambda self, shares, beaten: answer(self, shares, -1.0))
    answered.clear()
    assert search_lengths(classifier, rows, SEARCH) == found
    assert few < sum(answered)


@pytest.mark.parametrize("role", [Role.TRAIN, Role.CERTIFY, Role.TEST])
def test_only_select_rows_search(role, searched, rows_file):
    rows = split_roles(load(str(rows_file)), Fractions(0.4, 0.2, 0.2, 0.2))[role]
    with pytest.raises(UserError, match="takes select rows"):
        search_lengths(OpenedModel.from_pretrained(searched[0]), rows, SEARCH)


def test_rows_without_labels_search_for_agreement(searched, rows_file):
    classifier = OpenedModel.from_pretrained(searched[0])
    bare = dataclasses.replace(roles_of(rows_file)[Role.SELECT], labels=None)
    found = search_lengths(classifier, bare, SEARCH)
    assert found.full_accuracy == 1.0 and found.chosen.accuracy >= 0.95
    assert max(found.front, key=lambda one: one.flops).accuracy == 1.0


def test_a_model_without_shares_has_nothing_to_search(model_folder, rows_file):
    with pytest.raises(UserError, match='kind = "share"'):
        search_lengths(OpenedModel.from_pretrained(model_folder), roles_of(rows_file)[Role.SELECT], SEARCH)


def test_a_sample_does_not_depend_on_the_order_of_the_rows(rows_file):
    rows = roles_of(rows_file)[Role.SELECT]
    turned = rows.take(np.arange(len(rows))[::-1])
    assert sorted(sample(rows, 7).texts) == sorted(sample(turned, 7).texts) and len(sample(rows, 7)) == 7
    assert sample(rows, len(rows)) is rows


def test_other_values_are_another_model_without_operating_points(searched, tmp_path):
    before = read_manifest(searched[0])
    after = with_pruning_values(searched[0], tmp_path / "out", np.array([np.nan, 0.5, 0.5, 0.25]), {"by": "hand"})
    model, read = load_model(tmp_path / "out")  # it compares the fingerprint
    assert read == after and after.fingerprint != before.fingerprint
    assert before.operating_points and after.operating_points == ()
    assert after.training == {**before.training, "by": "hand"}
    assert np.array_equal(model.token_rule.values, [np.nan, 0.5, 0.5, 0.25], equal_nan=True)


def test_shares_for_another_depth_or_no_pruning_are_refused(searched, model_folder, tmp_path):
    for folder, values in ((searched[0], np.ones(5)), (model_folder, np.ones(4))):
        with pytest.raises(UserError, match=r"give|train it with a \[pruning\] table"):
            with_pruning_values(folder, tmp_path / "out", values, {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "pruning"),
    [
        ("spatten", {}),  # four layers: the last alone drops tokens
        ("power", {"first": 7.0, "final": 1.0}),  # texts of the tests are short
        ("manual-thresholds", {}),
    ],
)
def test_a_fixed_schedule_is_a_recipe_from_rows_to_answers(name, pruning, rows_file, tiny_checkpoint, tmp_path):
    recipe = quick(name)
    recipe = dataclasses.replace(recipe, pruning=dataclasses.replace(recipe.pruning, **pruning))
    train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)
    classifier = OpenedModel.from_pretrained(tmp_path / "model")
    held_out = roles_of(rows_file)[Role.CERTIFY]
    found, flops, accuracy = outcomes(classifier, held_out, classifier.token_rule)
    assert accuracy > 0.75
    assert found.token_counts[:, -1].sum() < 0.75 * found.token_counts[:, 0].sum() and flops < 1
    assert read_manifest(tmp_path / "model").pruning == recipe.pruning


def test_a_checkpoint_without_lengthdrop_can_be_searched_too(rows_file, tiny_checkpoint, tmp_path):
    stages = (StageConfig("regular", 1.0, 1e-3),)  # drop-and-restore at inference alone, as in Dynamic-TinyBERT
    pruning = PruningConfig(kind="share", schedule="flat")
    recipe = Recipe("mine", "a test", stages, 24, head_layers=(), pruning=pruning, search=SEARCH)
    result = train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)
    assert result.search.chosen.accuracy >= result.search.full_accuracy - 0.05 - 1e-12
    assert OpenedModel.from_pretrained(tmp_path / "model").token_rule is not None


def test_a_recipe_that_cannot_work_leaves_nothing_behind(rows_file, tiny_checkpoint, tmp_path):
    recipe = dataclasses.replace(quick("lat"), pruning=PruningConfig())
    with pytest.raises(UserError, match='set kind = "share"'):
        train_model(str(rows_file), tmp_path / "model", recipe, str(tiny_checkpoint), QUIET)
    wrong = Recipe("mine", "a test", (StageConfig("heads", 1.0, 1e-3),), pruning=None, search=SEARCH)
    with pytest.raises(UserError, match=r"or leave \[search\] out"):
        adapt_model(str(tiny_checkpoint), str(rows_file), tmp_path / "model", wrong, QUIET)
    assert not list(tmp_path.iterdir())
