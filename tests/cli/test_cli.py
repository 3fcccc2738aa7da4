import io
import json
import os
import subprocess
import sys

import pytest

from ziggurat import __version__

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


def test_an_edited_label_is_one_line_with_the_command_that_keeps_it(ziggurat, fails, copied, model_folder):
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


def test_a_hundred_thousand_words_are_cut_and_the_answer_says_so(ziggurat, model_folder):
    code, out, _ = ziggurat("predict", model_folder, "bat " * 100_000, "bat", "--json")
    assert code == 0
    assert [answer["truncated"] for answer in json.loads(out)["answers"]] == [True, False]


def test_disk_full_is_one_line_and_leaves_nothing(fails, rows_file, model_folder, tmp_path, monkeypatch):
    from pathlib import Path

    def full(self, *_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    message = fails("predict", model_folder, "--data", rows_file, "--out", tmp_path / "answers.jsonl")
    assert "free some space" in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["predict", "explain", "eval", "info", "bench"])
def test_json_is_one_object_on_stdout_and_nothing_else(command, ziggurat, model_folder, rows_file):
    extra = {
        "predict": ["bat kin", "--device", "cpu"],
        "explain": ["bat kin"],
        "eval": ["--data", rows_file],
        "info": [],
        "bench": ["--data", rows_file, "--batch", "8", "--texts", "8", "--repeats", "1"],
    }
    code, out, _ = ziggurat(command, model_folder, *extra[command], "--json")
    assert code == 0
    assert out.count("\n") == 1
    assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("command", ["predict", "explain", "eval", "info", "bench"])
def test_people_get_lines_without_braces(command, ziggurat, model_folder, rows_file):
    extra = {
        "predict": ["bat kin"],
        "explain": ["bat kin"],
        "eval": ["--data", rows_file],
        "info": [],
        "bench": ["--data", rows_file, "--batch", "8", "--texts", "8", "--repeats", "1"],
    }
    code, out, _ = ziggurat(command, model_folder, *extra[command])
    assert code == 0
    assert out.strip()
    assert "{" not in out


def test_compare_prints_tables_or_one_object(ziggurat, model_folder, rows_file):
    options = ["--data", rows_file, "--only", "SDPA float32", "--batch", "4", "--texts", "6"]
    options += ["--scored", "6", "--repeats", "1", "--points", "balanced"]
    code, out, _ = ziggurat("compare", model_folder, *options)
    assert code == 0
    assert "one text at a time: from strings, tokenising included" in out
    assert "times as fast as each peer" in out
    code, out, _ = ziggurat("compare", model_folder, *options, "--json")
    assert code == 0
    assert {row["engine"] for row in json.loads(out)["rows"]} >= {"transformers"}


def test_profile_keeps_it_and_prints_a_table_or_one_object(ziggurat, model_folder, rows_file, tmp_path, monkeypatch):
    from ziggurat.measure import profile as profiling

    monkeypatch.setenv("ZIGGURAT_CACHE", str(tmp_path))
    monkeypatch.setattr(profiling, "token_grid", lambda engine, threads: [1, 2, 4, 8, 24])
    options = ["--repeats", "1", "--texts", "6", "--points", "fast"]
    code, out, _ = ziggurat("profile", model_folder, *options)
    [kept] = tmp_path.rglob("*.json")
    assert code == 0
    assert str(kept) in out and "of a text" in out and "random texts" in out and "largest error" in out
    code, out, _ = ziggurat("profile", model_folder, *options, "--data", rows_file, "--batch", "2", "--json")
    result = json.loads(out)
    assert code == 0
    assert result["key"] == kept.stem
    assert [e["point"] for e in result["errors"] if e["what"] == str(rows_file)] == ["full", "fast"]


@pytest.mark.parametrize(("terminal", "no_color", "coloured"), [(1, "", True), (1, "1", False), (0, "", False)])
def test_only_a_terminal_gets_colours_and_only_without_no_color(
    terminal, no_color, coloured, ziggurat, pruned_folder, monkeypatch
):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: bool(terminal))
    monkeypatch.setenv("NO_COLOR", no_color)
    code, out, _ = ziggurat("explain", pruned_folder, "bat kin rat", "--threshold", "0")
    assert code == 0
    assert ("\x1b[" in out) == coloured


def test_a_pair_on_the_command_line_is_answered_as_in_a_file_and_as_explain_tells(ziggurat, pair_folder, tmp_path):
    _, out, _ = ziggurat("predict", pair_folder, "bat kin", "--text-pair", "rat", "--json")
    [answer] = json.loads(out)["answers"]
    assert answer["text"] == ["bat kin", "rat"]
    (tmp_path / "pairs.jsonl").write_text('{"text": "bat kin", "text_pair": "rat"}\n')
    _, out, _ = ziggurat("predict", pair_folder, "--data", tmp_path / "pairs.jsonl", "--json")
    assert json.loads(out)["answers"][0]["probabilities"] == answer["probabilities"]
    _, out, _ = ziggurat("explain", pair_folder, "bat kin", "rat", "--json")
    assert json.loads(out)["probabilities"] == answer["probabilities"]
    _, out, _ = ziggurat("predict", pair_folder, "rat", "--text-pair", "bat kin", "--json")
    assert json.loads(out)["answers"][0]["probabilities"] != answer["probabilities"]
    _, out, _ = ziggurat("predict", pair_folder, "bat kin", "--text-pair", "rat")
    assert out.rstrip().endswith("bat kin | rat")


def piped(monkeypatch, content):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


def test_a_dash_reads_a_text_from_each_line_that_is_piped_in(ziggurat, model_folder, monkeypatch):
    piped(monkeypatch, "bat kin\r\nrät – rat".encode())
    code, out, _ = ziggurat("predict", model_folder, "-", "--json")
    assert code == 0
    assert [answer["text"] for answer in json.loads(out)["answers"]] == ["bat kin", "rät – rat"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "stdin: no lines"),
        (b"bat\n\xff\n", "stdin, line 2: is not UTF-8"),
    ],
)
def test_what_is_piped_in_is_refused_by_its_line(content, named, fails, model_folder, monkeypatch):
    piped(monkeypatch, content)
    assert named in fails("predict", model_folder, "-")


@pytest.mark.parametrize("rest", [("bat",), ("--text-pair", "kin")])
def test_a_dash_goes_with_no_other_text(rest, fails, model_folder):
    assert "goes with no other one" in fails("predict", model_folder, "-", *rest)


def test_explain_writes_a_page_and_answers_as_predict_does(ziggurat, pruned_folder, tmp_path):
    text = "bat <b>kin</b>\x1b[31m rat"
    _, out, _ = ziggurat("explain", pruned_folder, text, "--html", tmp_path / "new" / "page.html", "--json")
    told = json.loads(out)
    _, out, _ = ziggurat("predict", pruned_folder, text, "--json")
    assert told["probabilities"] == json.loads(out)["answers"][0]["probabilities"]
    page = (tmp_path / "new" / "page.html").read_text("utf-8")
    assert told["html"] == str(tmp_path / "new" / "page.html")
    assert "<b>" not in page and "\x1b" not in page


def test_train_then_eval_end_to_end(ziggurat, rows_file, tiny_recipe, tiny_checkpoint, tmp_path):
    out = tmp_path / "runs" / "model"
    code, text, _ = ziggurat(
        "train",
        "--train",
        rows_file,
        "--recipe",
        tiny_recipe,
        "--model",
        tiny_checkpoint,
        "--out",
        out,
        "--device",
        "cpu",
    )
    assert code == 0
    assert "balanced" in text
    code, text, _ = ziggurat("eval", out, "--data", rows_file, "--json")
    result = json.loads(text)
    assert code == 0
    assert result["seen_in_training"] > 0
    assert result["accuracy"] > 0.7


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


def test_nothing_at_all_gets_the_help(ziggurat):
    code, out, err = ziggurat()
    assert code == 2 and "Usage:" in out + err and "predict" in out + err


def test_the_version_is_told(ziggurat):
    assert ziggurat("--version") == (0, f"ziggurat {__version__}\n", "")


def test_one_drop_twice_is_named_as_that(fails):
    assert "--max-drop: 0.01 is given twice" in fails("calibrate", "m", "--data", "x", "--max-drop", "0.01,0.01")


def test_an_operating_point_that_is_a_folder_is_refused(fails, model_folder, tmp_path):
    folder = tmp_path / "point.json"
    folder.mkdir()
    message = fails("predict", model_folder, "bat", "--operating-point", folder)
    assert "point.json: is a folder, not a file" in message


def test_a_page_does_not_take_the_place_of_a_models_file(fails, model_folder):
    assert "is what is read" in fails("explain", model_folder, "bat", "--html", model_folder / "ziggurat.json")


def test_help_loads_neither_numpy_nor_torch():
    code = "import sys; sys.argv = ['ziggurat', '--help']; from ziggurat.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'numpy', 'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    for command in ["demo", "train", "adapt", "cascade", "calibrate", "eval", "predict", "explain", "bench", "compare"]:
        assert f"  {command} " in result.stdout
    for command in ["profile", "info", "seal", "report"]:
        assert f"  {command} " in result.stdout


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
