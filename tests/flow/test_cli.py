import io
import json
import subprocess
import sys

import pytest

from ziggurat import __version__


def test_a_hundred_thousand_words_are_cut_and_the_answer_says_so(ziggurat, model_folder):
    code, out, _ = ziggurat("predict", model_folder, "bat " * 100_000, "bat", "--json")
    assert code == 0
    assert [answer["truncated"] for answer in json.loads(out)["answers"]] == [True, False]


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


def test_profile_keeps_and_prints_it(ziggurat, model_folder, rows_file, tmp_path, monkeypatch):
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


def test_a_pair_is_answered_as_in_a_file_and_as_explain_shows(ziggurat, pair_folder, tmp_path):
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


def test_nothing_at_all_gets_the_help(ziggurat):
    code, out, err = ziggurat()
    assert code == 2 and "Usage:" in out + err and "predict" in out + err


def test_the_version_is_told(ziggurat):
    assert ziggurat("--version") == (0, f"ziggurat {__version__}\n", "")


def test_help_loads_neither_numpy_nor_torch():
    code = "import sys; sys.argv = ['ziggurat', '--help']; from ziggurat.cli import main\n"
    code += "try: main()\nexcept SystemExit: pass\n"
    code += "print(sorted({'numpy', 'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.rstrip().endswith("[]")
    for command in ["demo", "train", "adapt", "eval", "predict", "explain", "bench", "info", "report"]:
        assert f"  {command} " in result.stdout
