"""A user's mistake on the command line is one line that names the file, row or option and the fix."""

import json
import os

import pytest

ROW = '{"text": "bat kin", "label": "river"}\n'

BAD_ROWS = {
    "no such column": ('{"txt": "bat", "label": "river"}\n', "text"),
    "empty file": ("", "rows.jsonl"),
    "empty text": (ROW + '{"text": "", "label": "river"}\n', "rows.jsonl, line 2"),
    "white space": (ROW + '{"text": " \\t ", "label": "river"}\n', "rows.jsonl, line 2"),
    "broken line": (ROW + '{"text": \n', "rows.jsonl, line 2"),
    "NaN label": (ROW + '{"text": "kin", "label": NaN}\n', "rows.jsonl, line 2"),
    "no label": (ROW + '{"text": "kin"}\n', "rows.jsonl, line 2"),
    "unknown label": (ROW + '{"text": "kin", "label": "castle"}\n', "rows.jsonl, line 2: unknown label 'castle'"),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_one_line_that_names_the_place(case, fails, model_folder, tmp_path):
    content, named = BAD_ROWS[case]
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    assert named in fails("eval", model_folder, "--data", path, "--device", "cpu")


def test_invalid_utf8_names_its_line(fails, model_folder, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROW.encode() + b'{"text": "\xff\xfe", "label": "river"}\n')
    assert "rows.jsonl, line 2" in fails("eval", model_folder, "--data", path)


def test_one_class_only_cannot_be_trained(fails, tiny_checkpoint, tiny_recipe, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(ROW * 50)
    message = fails(
        "train", "--train", path, "--out", tmp_path / "m", "--recipe", tiny_recipe, "--model", tiny_checkpoint
    )
    assert "'river'" in message
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["eval", "MODEL", "--data", "absent.jsonl"], "absent.jsonl"),
        (["eval", "MODEL", "--data", "ROWS", "--operating-point", "quick"], "balanced"),
        (["eval", "MODEL", "--data", "ROWS", "--threshold", "0.5", "--score", "luck"], "entropy"),
        (["eval", "MODEL", "--data", "ROWS", "--threshold", "0.5", "--score", "top-entropy@1"], "whole number"),
        (["eval", "MODEL", "--data", "ROWS", "--threshold", "3", "--score", "agreement"], "is 2; lower the threshold"),
        (["predict", "MODEL", "bat", "--threshold", "9", "--score", "confident-in-a-row@0.5"], "is 3; lower"),
        (["eval", "MODEL", "--data", "ROWS", "--device", "tpu"], "cuda"),
        (["eval", "MODEL", "--data", "ROWS", "--dtype", "int3"], "bfloat16"),
        (["eval", "MODEL", "--data", "ROWS", "--batch-size", "0"], "at least 1"),
        (["eval", "MODEL", "--data", "ROWS", "--threads", "0"], "at least 1"),
        (["eval", "MODEL", "--data", "ROWS", "--label-column", "klass"], "klass"),
        (["eval", "absent/", "--data", "ROWS"], "absent/"),
        (["eval", "CHECKPOINT", "--data", "ROWS"], "ziggurat adapt"),
        (["bench", "MODEL", "--data", "ROWS", "--batch", "1,two"], "--batch"),
        (["bench", "MODEL", "--data", "ROWS", "--batch", "0"], "at least 1"),
        (["compare", "MODEL", "--data", "ROWS", "--batch", "0"], "at least 1"),
        (["compare", "MODEL", "--data", "ROWS", "--batch", "1,two"], "--batch"),
        (["compare", "MODEL", "--data", "ROWS", "--device", "cuda"], "--device cpu"),
        (["bench", "MODEL", "--data", "ROWS", "--only", "openvino"], "No such option"),
        (["compare", "MODEL", "--data", "ROWS", "--only", "opnvino"], "OpenVINO int8"),
        (["bench", "MODEL", "--data", "ROWS", "--points", ""], "leave the option out"),
        (["bench", "MODEL"], "with --data FILE, or with --task NAME"),
        (["compare", "MODEL"], "with --data FILE, or with --task NAME"),
        (["profile", "MODEL", "--out", "new"], "No such option"),
        (["profile", "MODEL", "--points", "quick"], "balanced"),
        (["predict", "MODEL"], "--data"),
        (["predict", "MODEL", "bat", "--data", "ROWS"], "one of them"),
        (["predict", "MODEL", "bat", "--text-pair", "kin"], "leave out the second one"),
        (["predict", "PAIRS", "bat"], "--text-pair"),
        (["predict", "PAIRS", "bat", "kin"], "--text-pair"),
        (["predict", "PAIRS", "bat", "rat", "--text-pair", "kin"], "one text, not 2; put several pairs into a file"),
        (["predict", "PAIRS", "--data", "ROWS", "--text-pair", "kin"], "with --data name"),
        (["predict", "PAIRS", "--text-pair", "kin"], "either texts or --data"),
        (["explain", "MODEL", "bat", "kin"], "single texts"),
        (["explain", "MODEL", "bat", "--operating-point", "quick"], "it has: full, "),
        (["explain", "MODEL", "bat", "--threshold", "0.5", "--score", "luck"], "entropy"),
        (["info", "absent/"], "absent/"),
        (["report", "thresholds", "absent/", "--data", "ROWS", "--out", "new"], "absent/"),
        (["report", "thresholds", "MODEL", "--data", "ROWS", "--out", "new", "--taus", "0.1,x"], "--taus"),
        (["report", "lengths", "MODEL", "--data", "ROWS", "--out", "new", "--buckets", "9,5"], "--buckets"),
        (["report", "lengths", "MODEL", "--data", "ROWS", "--out", "new", "--operating-point", "quick"], "balanced"),
        (["report", "sweep", "MODEL", "--data", "ROWS", "--out", "new"], "trained with pruning"),
        (["report", "methods", "MODEL", "MODEL", "--data", "ROWS", "--out", "new"], "--name"),
        (["train", "--train", "ROWS", "--out", "MODEL"], "not empty"),
        (["train", "--train", "ROWS", "--out", "new", "--recipe", "quick"], "early-exit"),
        (["train", "--train", "ROWS", "--out", "new", "--model", "absent/"], "absent/"),
        (["train", "--train", "ROWS", "--out", "new", "--teacher", "MODEL"], "makes no student"),
        (["train", "--train", "ROWS", "--out", "new", "--student", "CHECKPOINT"], "makes no student"),
        (["train", "--teacher", "CHECKPOINT", "--train", "ROWS", "--recipe", "distil", "--out", "x"], "ziggurat adapt"),
        (["adapt", "BARE", "--train", "ROWS", "--out", "new"], "no model.safetensors; give a folder"),
        (["cascade", "MODEL", "--out", "new"], "at least two models"),
        (["cascade", "STATIC", "absent/", "--out", "new"], "absent/"),
        (["cascade", "STATIC", "PAIRS", "--out", "new"], "pairs of texts"),
        (["cascade", "MODEL", "STATIC", "--out", "new"], "must be an encoder"),
        (["cascade", "STATIC", "MODEL", "--out", "PAIRS"], "not empty"),
        (["cascade", "STATIC", "MODEL", "--out", "new", "--data", "absent.jsonl"], "absent.jsonl"),
        (["predict", "MODEL", "bat", "--threshold", "0.5", "--score", "learned"], "ziggurat cascade"),
        (["predict", "CASCADE", "bat"], "ziggurat calibrate"),
        (["predict", "CASCADE", "bat", "--threshold", "0.5", "--score", "learned"], "ziggurat cascade"),
        (["train", "--train", "ROWS", "--out", "new", "--recipe", "static", "--teacher", "absent/"], "absent/"),
        (["train", "--train", "ROWS", "--out", "new", "--recipe", "bilstm", "--model", "CHECKPOINT"], "--teacher"),
    ],
)
def test_wrong_arguments_are_one_line_with_the_fix(
    arguments,
    named,
    fails,
    model_folder,
    pair_folder,
    static_folder,
    cascade_folder,
    rows_file,
    tiny_checkpoint,
    tmp_path,
    monkeypatch,
):
    monkeypatch.chdir(tmp_path)
    bare = tmp_path / "bare"
    bare.mkdir()
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    (bare / "config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("id2label", "label2id")})
    )
    places = {
        "MODEL": model_folder,
        "PAIRS": pair_folder,
        "STATIC": static_folder,
        "CASCADE": cascade_folder,
        "ROWS": rows_file,
        "CHECKPOINT": tiny_checkpoint,
        "BARE": bare,
    }
    assert named in fails(*(places.get(argument, argument) for argument in arguments))
    assert not (tmp_path / "new").exists()


def spoil_version(folder):
    values = json.loads((folder / "ziggurat.json").read_text())
    (folder / "ziggurat.json").write_text(json.dumps(values | {"format_version": 99}))


SPOILED = {
    "no manifest": (lambda folder: (folder / "ziggurat.json").unlink(), "ziggurat adapt"),
    "newer manifest": (spoil_version, "upgrade"),
    "broken manifest": (lambda folder: (folder / "ziggurat.json").write_text("{"), "ziggurat.json"),
    "truncated weights": (lambda folder: os.truncate(folder / "model.safetensors", 1000), "model.safetensors"),
    "truncated heads": (lambda folder: os.truncate(folder / "ziggurat.safetensors", 1000), "ziggurat.safetensors"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "config.json"),
}


@pytest.mark.parametrize("case", SPOILED)
def test_a_spoiled_model_folder_is_one_line(case, fails, copied, model_folder):
    spoil, named = SPOILED[case]
    folder = copied(model_folder)
    spoil(folder)
    assert named in fails("predict", folder, "bat kin")


def test_an_edited_label_is_refused_and_seal_is_named(ziggurat, fails, copied, model_folder):
    folder = copied(model_folder)
    path = folder / "ziggurat.json"
    path.write_text(path.read_text("utf-8").replace('"stone"', '"rock"'), "utf-8")
    for command in (("predict", folder, "bat kin"), ("info", folder), ("eval", folder, "--data", "stdlib-docs")):
        assert f"{path}: is not as it was written; copy the folder again" in fails(*command)
    code, out, _ = ziggurat("seal", folder)
    assert code == 0 and f"kept as it is now; changed: {path}" in out
    code, out, _ = ziggurat("info", folder)
    assert code == 0 and "rock" in out and "stone" not in out
    assert "nothing has changed" in ziggurat("seal", folder)[1]


def test_disk_full_is_one_line_and_leaves_nothing(fails, rows_file, model_folder, tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = fails("predict", model_folder, "--data", rows_file, "--out", tmp_path / "answers.jsonl")
    assert "free some space" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["predict"], "Missing argument 'MODEL'; see `ziggurat predict --help`"),
        (["frobnicate"], "No such command 'frobnicate'"),
        (["info", "m", "--jsn"], "No such option"),
        (["calibrate", "m", "--data", "x", "--confidence", "much"], "Invalid value for '--confidence'"),
    ],
)
def test_a_command_line_that_cannot_be_read_is_one_line_too(fails, arguments, says):
    assert says in fails(*arguments)


def test_one_drop_twice_is_named_as_that(fails):
    assert "--max-drop: 0.01 is given twice" in fails("calibrate", "m", "--data", "x", "--max-drop", "0.01,0.01")


def test_an_operating_point_that_is_a_folder_is_refused(fails, model_folder, tmp_path):
    folder = tmp_path / "point.json"
    folder.mkdir()
    message = fails("predict", model_folder, "bat", "--operating-point", folder)
    assert "point.json: is a folder, not a file" in message


def test_a_page_does_not_take_the_place_of_a_models_file(fails, model_folder):
    html = model_folder / "ziggurat.json"
    assert "is an input of this command" in fails("explain", model_folder, "bat", "--html", html)


@pytest.mark.parametrize(
    "arguments",
    [
        ["bench", "MODEL", "--data", "ROWS", "--out", "ROWS"],
        ["compare", "MODEL", "--data", "ROWS", "--out", "ROWS"],
        ["bench", "MODEL", "--data", "ROWS", "--out", "ROWS/rows.jsonl"],
        ["compare", "MODEL", "--data", "ROWS", "--out", "ROWS/rows.jsonl"],
        ["bench", "MODEL", "--data", "ROWS", "--figure", "ROWS/figure"],
        ["report", "thresholds", "MODEL", "--data", "ROWS", "--out", "ROWS"],
        ["report", "kernel", "--out", "ROWS"],
    ],
)
def test_what_cannot_be_written_is_refused_before_the_work(arguments, fails, model_folder, rows_file, monkeypatch):
    monkeypatch.setattr("ziggurat.measure.subject.ModelOptions.open", None)
    monkeypatch.setattr("ziggurat.analyses.papers.selection_costs", None)
    filled = [part.replace("MODEL", str(model_folder)).replace("ROWS", str(rows_file)) for part in arguments]
    assert f"{rows_file}" in fails(*filled)
