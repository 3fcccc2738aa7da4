"""--task, --data-dir and --metric from the command line to the figures."""

import json

import numpy as np
import pytest


@pytest.fixture(scope="module")
def agnews(tmp_path_factory):
    """A folder of AG News' files as they are given away."""
    folder = tmp_path_factory.mktemp("news") / "ag_news_csv"
    folder.mkdir()
    rng = np.random.default_rng(0)
    lines = [f'"{n % 4 + 1}","bat kin","{" ".join(rng.choice(["losh", "mur", "ness"], 4))}"\n' for n in range(40)]
    (folder / "test.csv").write_text("".join(lines))
    (folder / "train.csv").write_text("".join(lines[:8]))
    return folder.parent


@pytest.fixture(scope="module")
def news_folder(make_bert, make_checkpoint, tmp_path_factory):
    """A random model of AG News' four topics."""
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model

    base = tmp_path_factory.mktemp("topics")
    names = ("World", "Sports", "Business", "Sci/Tech")
    settings = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    checkpoint = make_checkpoint(make_bert(**settings), base / "checkpoint")
    torch.manual_seed(1)
    manifest = Manifest(names, False, 24, "fastbert", (1, 2, 3), "")
    model = load_hf(checkpoint, 4, "fastbert", None).eval()
    save_model(model, manifest, np.array([1], np.uint64), checkpoint, base / "model")
    return base / "model"


def test_eval_takes_the_split_on_which_models_are_compared(succeeds, news_folder, agnews):
    options = ["--task", "ag_news", "--data-dir", agnews, "--operating-point", "full", "--metric", "f1-macro,mcc"]
    result = json.loads(succeeds("eval", news_folder, *options, "--json"))
    assert result["data"] == f"task:ag_news@test:{agnews}" and result["n"] == 40
    assert result["metrics"].keys() >= {"f1_macro", "f1_macro_low", "full_f1_macro", "mcc"}
    shown = succeeds("eval", news_folder, *options)
    assert f"  f1-macro   {result['metrics']['f1_macro']:.4f} [" in shown


def test_another_split_is_named_behind_the_task(succeeds, news_folder, agnews):
    options = ["--data-dir", agnews, "--operating-point", "full", "--json"]
    assert json.loads(succeeds("eval", news_folder, "--task", "ag_news@train", *options))["n"] == 8


def test_predict_and_report_know_tasks_too(succeeds, news_folder, agnews, tmp_path):
    task = ["--task", "ag_news", "--data-dir", agnews]
    answers = json.loads(succeeds("predict", news_folder, *task, "--threshold", "0.9", "--json"))["answers"]
    assert len(answers) == 40 and answers[0]["label"] in ("World", "Sports", "Business", "Sci/Tech")
    succeeds("report", "lengths", news_folder, *task, "--threshold", "0.9", "--out", tmp_path / "report")
    assert "# Savings by input length: ag_news test" in (tmp_path / "report" / "lengths.md").read_text()
