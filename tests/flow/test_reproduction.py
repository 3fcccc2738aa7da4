"""The reproduction: what its tool trains, chooses and writes for the tiny encoder."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from types import SimpleNamespace

import numpy as np
import pytest

from reproduction import models, reproduce
from ziggurat.calibrate import Promise, select_ladders
from ziggurat.data import Fractions, Role, load, split_roles
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.measure import SCHEMA, checked_row, read_rows_file
from ziggurat.recipe import PruningConfig, load_recipe

HOPELESS = "magic-pyramid"  # made to read next to no word, so that no training helps
METHODS = ["full", "ltp", "early-exit", HOPELESS]
EPOCHS = {"regular": 12, "soft": 1, "hard": 2, "heads": 6}


def quick_recipe(method):
    """The shipped recipe at a rate by which the tiny encoder learns in seconds, with heads cheaper than a layer."""
    recipe = load_recipe(method)
    quick = [(stage, float(EPOCHS.get(stage.kind, 1))) for stage in recipe.stages]
    stages = [dataclasses.replace(stage, learning_rate=3e-3, epochs=epochs) for stage, epochs in quick]
    # What is hopeless shall be tried to its end.
    stages = tuple(dataclasses.replace(stage, trial=False) if stage.kind == "soft" else stage for stage in stages)
    recipe = dataclasses.replace(recipe, stages=stages, head_kind="linear", select=0.3)
    return dataclasses.replace(recipe, pruning=PruningConfig(vocabulary=0.01)) if method == HOPELESS else recipe


@pytest.fixture(scope="module")
def made(rows_file, tiny_checkpoint, tmp_path_factory):
    """What the tool leaves behind for one data set of 180 train and 60 test rows."""
    folder = tmp_path_factory.mktemp("reproduction")
    lines = rows_file.read_text().splitlines(keepends=True)
    data = folder / "tiny"
    data.mkdir()
    (data / "train.jsonl").write_text("".join(lines[:180]))
    (data / "test.jsonl").write_text("".join(lines[180:]))
    arguments = [data, "--runs", folder / "runs", "--rows", folder / "rows.jsonl", "--model", tiny_checkpoint]
    arguments = [str(argument) for argument in [*arguments, "--methods", *METHODS]]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models, "load_recipe", quick_recipe)
        reproduce.main(arguments)
        experiment = models.Experiment(data, folder / "runs", 0, str(tiny_checkpoint), folder / "rows.jsonl")
        yield SimpleNamespace(experiment=experiment, arguments=arguments, rows=read_rows_file(experiment.rows))


def row_of(made, method):
    [row] = [row for row in made.rows if row["what"] == method]
    return row


def opened(made, method):
    return OpenedModel.from_pretrained(made.experiment.model(method))


def test_every_method_is_one_row_with_every_key_of_the_schema(made):
    assert [row["what"] for row in made.rows] == METHODS
    for row in made.rows:
        assert SCHEMA.keys() <= row.keys()
        assert checked_row(row) == row
        assert (row["data"], row["split"], row["seed"], row["model"]) == ("tiny", "test", 0, "tiny")
        assert (row["n_accuracy"], row["padding"], row["exit_score"]) == (60, "packed", "entropy")


def test_a_rows_accuracy_is_that_of_the_model_in_its_folder(made):
    rows = load(made.experiment.test)
    answers = opened(made, "full").answer(rows.texts, "full")
    right = np.mean([answer.label == label for answer, label in zip(answers, rows.labels, strict=True)])
    assert row_of(made, "full")["accuracy"] == row_of(made, "ltp")["full_accuracy"] == pytest.approx(right)
    assert right > 0.7


def test_full_is_its_own_measure_and_a_chosen_method_costs_less(made):
    assert row_of(made, "full")["flops_gain"] == 1
    for method in ("ltp", "early-exit"):
        row = row_of(made, method)
        assert not row["fell_back"]
        assert row["flops_gain"] > 1
        assert row["gflops_mean"] < row_of(made, "full")["gflops_mean"]


def test_a_method_without_a_fitting_setting_falls_back_to_full(made):
    row, full = row_of(made, HOPELESS), row_of(made, "full")
    assert row["fell_back"]
    same = ("accuracy", "accuracy_low", "accuracy_high", "flops_gain", "gflops_mean")
    assert [row[key] for key in same] == [full[key] for key in same]
    # It is the accuracy that forbids it: the method alone would be far cheaper.
    [pruned] = select_ladders(opened(made, HOPELESS), select_rows(made), (1.0,))
    right = (pruned.all_readings[:, -1].argmax(axis=1) == select_rows(made).classes).mean()
    assert right < full["accuracy"] - 0.1


def test_the_others_start_from_the_full_model(made):
    full, exits = opened(made, "full"), opened(made, "early-exit")
    encoded = full.tokenizer.encode(load(made.experiment.test).texts, None)
    # The stage `heads` leaves the backbone bit for bit, so the last rung is the full model itself.
    assert np.array_equal(full.every_rung(encoded).readings[:, -1], exits.every_rung(encoded).readings[:, -1])


def select_rows(made):
    """All rows that trained nothing."""
    return split_roles(load(made.experiment.train), Fractions(0.6, 0.4, 0.0, 0.0))[Role.SELECT]


@pytest.mark.parametrize("data", models.DATA)
def test_magic_pyramid_has_a_recipe_for_each_data_set(data, tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_recipe", load_recipe)  # the fixture above has another
    file = load_recipe(str(models.RECIPES / f"{data}.toml"))
    assert [stage.kind for stage in file.stages] == ["regular", "soft", "hard", "heads"]
    behind = models.recipe_of("magic-pyramid", models.Experiment(tmp_path / data, tmp_path, 0))
    assert behind == dataclasses.replace(file, stages=file.stages[1:])
    # In phrases and pairs every word counts.
    assert (file.pruning.vocabulary is None) == (data in ("sst2", "mrpc", "rte"))


def test_two_methods_that_only_ask_otherwise_share_a_model(made):
    counted, surely = (models.recipe_of(method, made.experiment) for method in ("s3-count", "s3-entropy"))
    assert made.experiment.model("s3-count") == made.experiment.model("s3-entropy")
    assert (counted.stages, counted.head_kind, counted.head_layers) == (
        surely.stages,
        surely.head_kind,
        surely.head_layers,
    )
    assert (counted.exit_score, surely.exit_score) == ("agreement", None)


def test_where_phrases_train_sentences_choose(tmp_path):
    data = tmp_path / "sst2"
    data.mkdir()
    texts = [f"{number} {word} long sentence number {number}" for number in range(60) for word in ("good", "bad")]
    rows = [{"text": text, "label": int("good" in text)} for text in texts]
    rows += [{"text": " ".join(row["text"].split()[:4]), "label": row["label"]} for row in rows]
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = dataclasses.replace(load_recipe("full"), select=0.3)
    chosen = reproduce.choosing_rows(recipe, models.Experiment(data, tmp_path, 0))
    assert len(chosen) > 10 and chosen.role is Role.SELECT
    assert set(chosen.texts) < set(texts)
    everything = reproduce.choosing_rows(recipe, models.Experiment(data.rename(tmp_path / "other"), tmp_path, 0))
    assert len(everything) >= 2 * len(chosen)


def test_models_are_trained_several_at_a_time_the_full_one_first(made, tmp_path):
    first, second = (dataclasses.replace(made.experiment, runs=tmp_path, seed=seed) for seed in (0, 1))
    shutil.copytree(made.experiment.model("full"), first.model("full"))
    wanted = [("s3-count", first), ("s3-entropy", first), ("early-exit", second)]
    models.train_all(wanted, 2)
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == [
        "early-exit-1",
        "full-0",
        "full-1",
        "s3-entropy-0",
    ]


def test_the_longest_trainings_start_first(made, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(models, "_train_at_once", lambda missing, jobs: started.extend(missing))
    new = dataclasses.replace(made.experiment, runs=tmp_path)
    shutil.copytree(made.experiment.model("full"), new.model("full"))
    models.train_all([(method, new) for method in ("early-exit", "ltp", "magic-pyramid", "spatten")], 2)
    assert [method for method, _ in started] == ["magic-pyramid", "ltp", "spatten", "early-exit"]


def test_a_failed_training_is_named_and_no_more_are_started(made, tmp_path):
    gone = dataclasses.replace(made.experiment, runs=tmp_path, data=tmp_path / "gone")
    shutil.copytree(made.experiment.model("full"), gone.model("full"))
    with pytest.raises(UserError, match=r"gone/train\.jsonl"):
        models.train_all([("ltp", gone), ("lat", gone), ("spatten", gone)], 2)
    assert [path.name for path in (tmp_path / "gone").iterdir()] == ["full-0"]


def test_settings_are_chosen_on_rows_that_trained_nothing(made, tmp_path, monkeypatch):
    seen, ladders = [], reproduce.select_ladders

    def watched(classifier, rows, factors=None):
        seen.append((rows.role, rows.digest))
        return ladders(classifier, rows, factors)

    monkeypatch.setattr(reproduce, "select_ladders", watched)
    data = tmp_path / "tiny"  # the same train rows and no others: who looked for test rows would fail
    data.mkdir()
    shutil.copy(made.experiment.train, data)
    blind = dataclasses.replace(made.experiment, data=data)
    full = reproduce.Full(blind)
    for method in ("ltp", "early-exit"):
        model, recipe = opened(made, method), models.recipe_of(method, blind)
        rule = reproduce.chosen_rule(model, full, recipe, blind)
        row = reproduce.measure(method, model, reproduce.Full(made.experiment), rule, made.experiment)
        assert row["flops_gain"] == row_of(made, method)["flops_gain"]
    assert set(seen) == {(Role.SELECT, select_rows(made).digest)}
    assert len(seen) == 3  # what the full model says to them is asked once for all methods


def test_a_second_run_does_nothing(made, monkeypatch):
    def stop(*_):
        raise AssertionError("nothing is left to do")

    for module, name in ((models, "train"), (reproduce, "measure"), (reproduce, "trained")):
        monkeypatch.setattr(module, name, stop)
    before = made.experiment.rows.read_bytes()
    reproduce.main(made.arguments)
    assert made.experiment.rows.read_bytes() == before


def test_rows_of_models_that_are_not_here_do_not_count(made, tmp_path):
    """A clean checkout has rows and no models: `make reproduce` makes both."""
    elsewhere = dataclasses.replace(made.experiment, runs=tmp_path)
    assert reproduce.missing_rows(elsewhere, METHODS) == METHODS
    shutil.copytree(made.experiment.model("full"), elsewhere.model("full"))  # made after its row
    os.utime(elsewhere.model("full"), (later := time.time() + 60, later))
    assert "full" in reproduce.missing_rows(elsewhere, METHODS)
    assert reproduce.missing_rows(made.experiment, METHODS) == []


def test_a_missing_method_is_added_and_trained_models_reused(made, tmp_path, monkeypatch):
    def stop(*_):
        raise AssertionError("all models are there")

    monkeypatch.setattr(models, "train_model", stop)
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in made.rows if row["what"] != "ltp"))
    reproduce.reproduce([dataclasses.replace(made.experiment, rows=rows)], METHODS)
    again = read_rows_file(rows)
    assert [row["what"] for row in again] == ["full", "early-exit", HOPELESS, "ltp"]
    assert again[-1]["accuracy"] == row_of(made, "ltp")["accuracy"]


@pytest.mark.parametrize(
    ("files", "says"),
    [(None, "no train.jsonl"), (["train.jsonl"], "no test.jsonl or validation.jsonl"), (["test.jsonl"], "no train")],
)
def test_missing_data_is_one_line_before_anything_trains(files, says, made, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(models, "train_model", lambda *_: pytest.fail("it trains"))
    data = tmp_path / "elsewhere"
    if files is not None:
        data.mkdir()
    for name in files or []:
        shutil.copy(made.experiment.data / name, data)
    with pytest.raises(SystemExit) as stop:
        reproduce.main([str(data), "--runs", str(tmp_path / "runs"), "--rows", str(tmp_path / "rows.jsonl")])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1 and error.startswith(f"reproduce: {data}: ") and says in error


@pytest.mark.parametrize("data", [*models.DATA, "unheard-of"])
@pytest.mark.parametrize("method", models.METHODS)
def test_every_method_trains_as_long_as_magic_pyramid(method, data, tmp_path):
    experiment = models.Experiment(tmp_path / data, tmp_path, 3)
    full, pyramid, recipe = (models.recipe_of(name, experiment) for name in ("full", "magic-pyramid", method))
    expected = {stage.kind: stage.epochs for one in (full, pyramid) for stage in one.stages}
    kinds = [stage.kind for stage in recipe.stages]
    assert kinds and ("regular" in kinds) == (method == "full")
    # Behind a soft stage a joint one stands in for the hard one.
    expected["joint"] = expected["regular" if method == "pabee" else "hard"]
    shared = [stage for stage in recipe.stages if stage.kind not in ("guess", "lengthdrop") and stage.patience is None]
    assert [stage.epochs for stage in shared] == [expected[stage.kind] for stage in shared]
    assert (recipe.max_length, recipe.seed) == (128, 3)


def test_small_sets_start_at_a_larger_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "load_recipe", load_recipe)
    small, large = (models.Experiment(tmp_path / data, tmp_path, 0) for data in ("rte", "ag_news"))
    for method in ("full", "pabee"):
        assert models.recipe_of(method, small).stages[0].learning_rate == 1.5e-4
        assert models.recipe_of(method, large).stages[0].learning_rate == 5e-5
    for method in ("spatten", "magic-pyramid-joint"):
        shipped = [stage.learning_rate for stage in load_recipe(method).stages[1:]]
        assert [stage.learning_rate for stage in models.recipe_of(method, small).stages] == shipped


@pytest.fixture(scope="module")
def cascades(made):
    """The rows of the cascades over what the fixture above left behind."""
    from reproduction import tango

    rows = made.experiment.runs.parent / "cascades.jsonl"
    arguments = [made.experiment.data, "--runs", made.experiment.runs, "--rows", rows, "--students", "truncated"]
    arguments = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tango, "TIMED", {1: 8, 32: 16})
        tango.main(arguments)
        before = rows.read_text()
        tango.main(arguments)  # what is there is not done again
        assert rows.read_text() == before
    return read_rows_file(rows)


def test_missing_or_newer_cascades_have_no_rows_yet(cascades, made, tmp_path, monkeypatch):
    from reproduction import tango

    rows = made.experiment.runs.parent / "cascades.jsonl"
    options = SimpleNamespace(rows=rows, small=["static"], students=[])
    with pytest.raises(UserError, match="`make reproduce` trains it"):
        list(tango.missing_rows(dataclasses.replace(made.experiment, runs=tmp_path), options))
    monkeypatch.setattr(tango, "cascade_rows", lambda experiment, small: ["measured"])
    assert list(tango.missing_rows(made.experiment, options)) == []
    anew = dataclasses.replace(made.experiment, runs=tmp_path)
    shutil.copytree(made.experiment.model("full"), anew.model("full"))
    os.utime(anew.model("full"), (2**32, 2**32))
    assert list(tango.missing_rows(anew, options)) == ["measured"]


def test_a_cascades_rows_are_complete_and_of_unseen_rows(cascades):
    for row in cascades:
        checked_row(row)
        assert (row["data"], row["n_accuracy"]) == ("tiny", 60)
    found = {(row["what"], row["share"], row["batch"]) for row in cascades}
    assert len(found) == len(cascades)
    ladders = {"early-exit", "static > early-exit", "static > full", "static > magic-pyramid", "magic-pyramid"}
    assert {row["what"] for row in cascades} == {"static alone", "truncated alone", "random", "oracle", *ladders}
    assert {share for _, share, _ in found} == {None, 0.99, 0.98} and {batch for *_, batch in found} == {1, 32}


def test_random_and_oracle_routers_bound_what_a_router_escalates(cascades):
    by_router = {what: [row for row in cascades if row["what"] == what] for what in ("random", "oracle")}
    for random, oracle in zip(*by_router.values(), strict=True):
        assert 0 <= oracle["escalated"] <= random["escalated"] <= 1
        assert oracle["time_gain"] >= random["time_gain"]


def test_the_cascades_table_has_a_line_for_each_method(cascades):
    from reproduction import tables

    text = tables.cascades_tables(cascades)
    assert text.count("### Cascades on `tiny` (60 test texts") == 1
    assert text.count("| static > early-exit ") == 3  # both shares on one line, then throughput at each
    assert "| oracle |" in text and "| static alone |" in text and "| truncated alone |" in text
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in lines} == {10, 7}


def test_scores_and_questions_are_trained_by_shipped_recipes():
    from reproduction import tables, tasks

    for data in tasks.PLAIN:
        plain, pyramid = tasks.recipes(data)
        assert [stage.kind for stage in plain.stages] == ["regular"]
        assert [stage.kind for stage in pyramid.stages] == ["soft", "hard", "heads"]
        assert pyramid.pruning.vocabulary is None
    row = {"what": "full", "data": "stsb", "split": "test", "n": 1379, "dtype": "float32", "pearson": 0.8512,
           "spearman": 0.8498, "mean_layers": 6.0, "flops_gain": 1.0, "time_gain": 0.98}  # fmt: skip
    spans = row | {"data": "xquad_en", "exact_match": 0.2, "f1": 0.3}
    del spans["pearson"], spans["spearman"]
    text = tables.tasks_tables([row, row | {"what": "ltp", "flops_gain": 2.5}, spans])
    assert "### `stsb` (1,379 test rows, float32)" in text
    assert "| ltp | 0.8512 | 0.8498 | 6.00 | 2.50 | 0.98 |" in text
    assert "| full | 0.2000 | 0.3000 | 6.00 | 1.00 | 0.98 |" in text


def test_certified_points_and_a_useless_tier_are_measured(made, tmp_path, monkeypatch, capsys):
    from reproduction import certified_points, useless_tier

    promise = Promise({"fast": 0.5})  # nine rows certify no less
    certify = useless_tier.calibrate_model
    monkeypatch.setattr(certified_points, "Promise", lambda criterion: promise)
    monkeypatch.setattr(
        useless_tier, "calibrate_model", lambda *rest, options: certify(*rest, promise, options=options)
    )

    model, data = str(made.experiment.model("early-exit")), str(made.experiment.data)
    shutil.copytree(model, tmp_path / "model")
    for script, arguments in ((certified_points, []), (useless_tier, ["--rounds", "2", "--texts", "16"])):
        out = tmp_path / f"{script.__name__}.jsonl"
        script.main([str(tmp_path / "model"), data, *arguments, "--out", str(out)])
        rows = read_rows_file(out)
        assert len(capsys.readouterr().out.splitlines()) == len(rows) >= 1
        assert all((row["data"], row["split"], row["model"]) == ("tiny", "test", "model") for row in rows)
    assert rows[-1]["point"] == "full, tier asked" and rows[-1]["texts"] == 16
