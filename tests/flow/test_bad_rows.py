"""Rows, names and tokenizers that are not the model's: one line, the fix, exit code 2."""

import json
import shutil

import pytest

from ziggurat.encoder import seal_folder

SINGLE = '{"text": "bat", "label": "river"}\n{"text": "kin", "label": "stone"}\n{"text": "rat", "label": "tower"}\n'
PAIR = SINGLE.replace('"label"', '"text_pair": "kit", "label"')


@pytest.fixture
def rows(tmp_path):
    """A function that writes rows to a file and returns its path."""

    def write(content, name="rows.jsonl"):
        path = tmp_path / name
        path.write_text(content)
        return path

    return write


COMMANDS = {
    "predict": ["predict", "MODEL", "--data", "ROWS"],
    "eval": ["eval", "MODEL", "--data", "ROWS"],
    "calibrate": ["calibrate", "MODEL", "--data", "ROWS"],
    "bench": ["bench", "MODEL", "--data", "ROWS"],
    "report": ["report", "lengths", "MODEL", "--data", "ROWS", "--out", "new"],
    "cascade": ["cascade", "STATIC", "MODEL", "--out", "new", "--data", "ROWS"],
    "teacher": ["train", "--teacher", "MODEL", "--train", "ROWS", "--out", "new", "--recipe", "distil"],
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("pairs", [False, True], ids=["a pair for a single-text model", "the reverse"])
def test_pairs_and_single_texts_are_told_apart(
    command, pairs, fails, rows, model_folder, pair_folder, make_static, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = SINGLE if pairs else PAIR
    if command == "teacher":  # enough rows that each role has some
        given = "".join(line.replace("bat", f"bat {n}") for n in range(60) for line in given.splitlines(keepends=True))
    places = {"MODEL": pair_folder if pairs else model_folder, "ROWS": rows(given)}
    if command == "cascade":
        places["STATIC"] = make_static(pairs=pairs)
    message = fails(*(places.get(part, part) for part in COMMANDS[command]))
    assert "rows.jsonl" in message
    assert ("reads pairs" if pairs else "reads single") in message
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("command", ["eval", "calibrate", "bench", "report"])
def test_labels_of_another_model_are_refused_with_the_known_ones(
    command, fails, rows, model_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": model_folder, "ROWS": rows(SINGLE.replace("stone", "sand"))}
    message = fails(*(places.get(part, part) for part in COMMANDS[command]))
    assert "rows.jsonl, line 2" in message and "'sand'" in message and "'river', 'stone', 'tower'" in message


def test_a_checkpoint_for_another_task_is_told_by_its_labels(fails, rows, tiny_checkpoint, tmp_path):
    rows("sentence\tlabel\n" + "bat\t1\nkin\t0\n" * 50, "train.tsv")
    task = ["--task", "glue/sst2", "--data-dir", tmp_path]
    message = fails("adapt", tiny_checkpoint, *task, "--out", tmp_path / "new")
    assert "'positive'" in message and "'river', 'stone', 'tower'" in message


@pytest.mark.parametrize("label", ['["river"]', '{"a": 1}', "[0, 1, 0, 1]"])
def test_a_label_of_another_kind_or_width_names_its_row(label, fails, rows, model_folder):
    message = fails("eval", model_folder, "--data", rows(SINGLE.replace('"stone"', label)))
    assert "rows.jsonl, line 2" in message


def test_mixed_labels_name_both_kinds(fails, rows, tiny_checkpoint, tmp_path):
    path = rows(SINGLE.replace('"stone"', "1"))
    message = fails("train", "--train", path, "--model", tiny_checkpoint, "--out", tmp_path / "new")
    assert "mix integers (1) and strings ('river')" in message and "one kind" in message


def test_a_hub_name_without_network_says_what_to_give_instead(fails, rows, model_folder, tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")

    def unreachable(*_arguments, **_options):
        raise ConnectionError("Couldn't reach the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    assert "--data-dir FOLDER" in fails("eval", model_folder, "--task", "glue/mrpc")
    assert "check name and network" in fails("eval", model_folder, "--data", "hf:someone/reviews@test")
    assert "give a local folder" in fails("eval", "someone/model", "--data", rows(SINGLE))
    out = ["--out", tmp_path / "new"]
    assert "give a local folder" in fails("train", "--train", rows(SINGLE), "--model", "someone/model", *out)


def test_another_models_tokenizer_is_refused_before_the_work(
    fails, rows, copied, model_folder, tiny_checkpoint, rows_file, tmp_path
):
    folder = copied(model_folder)
    with_more_words(folder / "tokenizer.json")
    assert "tokenizer.json: is not the one" in fails("predict", folder, "bat")
    seal_folder(str(folder))
    assert "another model's" in fails("predict", folder, "bat")
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    with_more_words(checkpoint / "tokenizer.json")
    message = fails("train", "--train", rows_file, "--model", checkpoint, "--out", tmp_path / "new")
    assert "ids up to 54" in message and "tokenizer" in message and "trained with" in message


def with_more_words(path):
    """A tokenizer that knows one word more than the model has embeddings for."""
    values = json.loads(path.read_text("utf-8"))
    vocabulary = values["model"]["vocab"]
    vocabulary["extra"] = len(vocabulary)
    path.write_text(json.dumps(values), "utf-8")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["eval", "MODEL"], "--task NAME"),
        (["eval", "MODEL", "--data", "ROWS", "--task", "glue/rte"], "give rows once"),
        (["eval", "MODEL", "--data", "ROWS", "--data-dir", "x"], "--data-dir goes with --task"),
        (["eval", "MODEL", "--task", "mrpc"], "did you mean 'glue/mrpc'"),
        (["eval", "MODEL", "--task", "glue/mrpc@dev"], "it has train, validation, test"),
        (["eval", "MODEL", "--task", "glue/rte", "--data-dir", "absent"], "no such folder"),
        (["eval", "MODEL", "--data", "ROWS", "--metric", "rouge"], "choose one of accuracy, f1"),
        (["eval", "MODEL", "--data", "task:glue/rte@gone"], "no split 'gone'"),
        (
            ["eval", "MODEL", "--task", "glue/rte", "--data-dir", ".", "--text-column", "body"],
            "leave out --text-column",
        ),
        (["calibrate", "MODEL"], "--task NAME"),
        (["train", "--out", "new"], "--train FILE"),
        (["adapt", "MODEL", "--out", "new"], "--train FILE"),
        (["bench", "MODEL", "--data-dir", "."], "--task NAME"),
        (["report", "lengths", "MODEL", "--out", "new"], "--task NAME"),
    ],
)
def test_wrong_ways_to_name_rows_are_one_line_with_the_fix(
    arguments, named, fails, rows, model_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    places = {"MODEL": model_folder, "ROWS": rows(SINGLE)}
    assert named in fails(*(places.get(part, part) for part in arguments))
    assert not (tmp_path / "new").exists()
