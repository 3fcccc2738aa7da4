"""What rows, labels and names hold reaches people legibly, other programs exactly, and never as a traceback."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import signal
import subprocess
import sys

import pytest

from ziggurat.cli import main
from ziggurat.encoder import read_manifest, write_manifest

NASTY = "bat\nriver\t0.99\t1 layers, 3 tokens\tforged \x1b[31m\x1b]0;owned\x07 \u202e\x9b \u2028"
HALF = "bat \ud83d kin"


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": "river"}) + "\n" for text in (NASTY, HALF)))
    return path


@pytest.fixture
def odd_labels(copied, model_folder):
    """A model whose labels are nasty."""
    folder = copied(model_folder)
    write_manifest(dataclasses.replace(read_manifest(folder), labels=(NASTY, HALF, "$a$|b")), folder)
    return folder


def is_plain(text: str, lines: int) -> bool:
    text.encode("utf-8")
    return len(text.splitlines()) == lines and all(one.isprintable() or one in "\n\t" for one in text)


def test_people_get_one_plain_line_for_each_answer(ziggurat, model_folder, rows):
    code, out, _ = ziggurat("predict", model_folder, "--data", rows)
    assert code == 0 and is_plain(out, 2)
    assert [line.count("\t") for line in out.splitlines()] == [3, 3]
    assert "forged  [31m" in out.splitlines()[0]


def test_programs_get_every_character(ziggurat, model_folder, rows, tmp_path):
    _, out, _ = ziggurat("predict", model_folder, "--data", rows, "--json")
    assert [answer["text"] for answer in json.loads(out)["answers"]] == [NASTY, HALF]
    file = tmp_path / "answers.jsonl"
    assert ziggurat("predict", model_folder, "--data", rows, "--out", file)[0] == 0
    lines = file.read_bytes().decode("utf-8").splitlines()
    assert [json.loads(line)["text"] for line in lines] == [NASTY, HALF]


@pytest.mark.parametrize("command", ["info", "predict", "eval", "explain"])
def test_labels_are_legible_and_exact_too(command, ziggurat, odd_labels, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text("".join(json.dumps({"text": "bat", "label": label}) + "\n" for label in (NASTY, HALF)))
    rest = {"info": [], "predict": ["bat"], "eval": ["--data", path], "explain": ["bat"]}[command]
    code, out, _ = ziggurat(command, odd_labels, *rest)
    assert code == 0 and is_plain(out, len(out.splitlines()))
    _, said, _ = ziggurat(command, odd_labels, *rest, "--json")
    if command in ("info", "predict"):
        assert NASTY in str(json.loads(said)) or NASTY in json.loads(said).get("labels", NASTY)
        assert len(said.splitlines()) == 1


def test_pages_tables_and_figures_of_half_a_character_are_utf8(ziggurat, odd_labels, tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_text(
        "".join(json.dumps({"text": f"bat {HALF} {n}", "label": (NASTY, HALF)[n % 2]}) + "\n" for n in range(20))
    )
    assert ziggurat("explain", odd_labels, HALF, "--html", tmp_path / "e.html")[0] == 0
    report = ["report", "thresholds", odd_labels, "--name", f"a$x_{NASTY}|\udcff", "--data", path, "--taus", "0.5"]
    assert ziggurat(*report, "--out", tmp_path / "report")[0] == 0
    for file in (tmp_path / "e.html", *(tmp_path / "report").glob("*.[mcs]*")):
        assert "\x1b" not in file.read_bytes().decode("utf-8") or file.suffix == ".csv"
    body = (tmp_path / "report" / "thresholds.md").read_text("utf-8")
    assert not any(line.startswith("river") for line in body.splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        ["info", "no such\n\x1b[31mmodel/"],
        ["predict", "MODEL", "bat", "--operating-point", "quick\n\x1b[31m\udcff"],
        ["eval", "MODEL", "--data", "LABELS"],
        ["predict", "MODEL", "--data", "ROWS", "--text-column", "a\nb\x1b"],
        ["predict", "MODEL", "bat", "--o\n\x1b[31mpt"],
        ["calibrate", "MODEL", "--data", "ROWS", "--max-drop", "x\n\x1b"],
    ],
)
def test_a_complaint_is_one_plain_line_whatever_it_quotes(arguments, ziggurat, model_folder, rows, tmp_path):
    labels = tmp_path / "labels.jsonl"
    labels.write_text(json.dumps({"text": "bat", "label": NASTY + HALF}) + "\n")
    places = {"MODEL": model_folder, "ROWS": rows, "LABELS": labels}
    code, out, err = ziggurat(*(places.get(part, part) for part in arguments))
    assert (code, out) == (2, "") and is_plain(err, 1) and err.startswith("ziggurat: ")


def test_a_warning_is_one_plain_line(ziggurat, model_folder, monkeypatch):
    told = io.StringIO()

    def warn(*_):
        handler = logging.StreamHandler(told)
        handler.setFormatter(logging.lastResort.formatter)
        handler.handle(logging.LogRecord("a", logging.WARNING, "", 0, "label %s", (NASTY,), None))

    monkeypatch.setattr("ziggurat.measure.information.information", warn)
    ziggurat("info", model_folder)
    assert is_plain(told.getvalue(), 1) and told.getvalue().startswith("label bat river")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_with_few_letters_is_no_error(encoding, monkeypatch, model_folder):
    for arguments in (["predict", model_folder, "kin 日本 é"], ["predict", model_folder, "kin 日本 é", "--json"]):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "argv", ["ziggurat", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        out.flush()
        said = out.buffer.getvalue()
    assert json.loads(said.decode(encoding))["answers"][0]["text"] == "kin 日本 é"


def test_a_reader_that_goes_away_is_no_traceback(model_folder):
    command = [sys.executable, "-m", "ziggurat", "info", str(model_folder)]
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.stderr == "" and done.returncode not in (0, 2)


@pytest.mark.parametrize(("closed", "text", "code"), [("2>&-", "rain", 0), (">&-", "rain", 0), ("<&-", "-", 2)])
def test_closed_streams_are_empty_ones(closed, text, code, model_folder):
    command = f'exec "$0" -m ziggurat predict "$1" {text} --operating-point full {closed}'
    run = subprocess.run(["sh", "-c", command, sys.executable, model_folder], capture_output=True, timeout=120)
    assert run.returncode == code and b"Traceback" not in run.stdout + run.stderr
    assert (b"rain" in run.stdout) == (closed == "2>&-")
    assert (b"stdin: no lines" in run.stderr) == (text == "-")


def test_ctrl_c_while_modules_load_is_one_line(tmp_path):
    """A module that the command line loads first sends the signal, as a person would."""
    (tmp_path / "typer.py").write_text(f"import os, signal\nos.kill(os.getpid(), {int(signal.SIGINT)})\n")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from ziggurat.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "ziggurat: interrupted; nothing was half-written\n"
