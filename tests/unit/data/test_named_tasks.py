"""Named tasks: every layout in which people have GLUE, Zhang et al.'s sets and SQuAD gives the same rows."""

import json
import logging
from pathlib import Path

import pytest

from ziggurat.data import TASKS, Columns, load, split_roles
from ziggurat.data.catalogue import parse_source, task_of, task_source
from ziggurat.data.task_rows import task_questions
from ziggurat.errors import UserError
from ziggurat.problems import MEASURES
from ziggurat.types import ProblemType

# Two rows of each task as its own files have them: (file, content), then what they are.
GLUE = {
    "cola": (
        "gj04\t1\t\tOur \"friends won't buy this.\ngj04\t0\t*\tThey drank the pub.\n",
        ["Our \"friends won't buy this.", "They drank the pub."],
        None,
        ["acceptable", "unacceptable"],
    ),
    "sst2": (
        'sentence\tlabel\nhide "new secretions \t0\nlovely\t1\n',
        ['hide "new secretions ', "lovely"],
        None,
        ["negative", "positive"],
    ),
    "mrpc": (
        '\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe said "so\tSo he said\n0\t9\t10\ta\tb\n',
        ['He said "so', "a"],
        ["So he said", "b"],
        ["equivalent", "not_equivalent"],
    ),
    "qqp": (
        'id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\t"Why?\tHow?\t0\n1\t3\t4\tx\ty\t1\n',
        ['"Why?', "x"],
        ["How?", "y"],
        ["not_duplicate", "duplicate"],
    ),
    "stsb": (
        "index\tgenre\tsentence1\tsentence2\tscore\n0\tnews\tA plane.\tAn air plane.\t5.000\n1\tnews\ta\tb\t3.800\n",
        ["A plane.", "a"],
        ["An air plane.", "b"],
        [5.0, 3.8],
    ),
    "mnli": (
        "index\tsentence1\tsentence2\tlabel1\tgold_label\n0\tp\th\tneutral\tneutral\n1\tq\ti\tx\tcontradiction\n",
        ["p", "q"],
        ["h", "i"],
        ["neutral", "contradiction"],
    ),
    "qnli": (
        "index\tquestion\tsentence\tlabel\n0\tWho?\tHe.\tentailment\n1\tWhen?\tThere.\tnot_entailment\n",
        ["Who?", "When?"],
        ["He.", "There."],
        ["entailment", "not_entailment"],
    ),
    "rte": (
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tnot_entailment\n1\tc\td\tentailment\n",
        ["a", "c"],
        ["b", "d"],
        ["not_entailment", "entailment"],
    ),
    "wnli": (
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\t1\n1\tc\td\t0\n",
        ["a", "c"],
        ["b", "d"],
        ["entailment", "not_entailment"],
    ),
}
ZHANG = {
    "ag_news": ('"3","Wall St.","Short-sellers, Wall\\band"\n"4","Moon","A ""big"" step"\n', ["Business", "Sci/Tech"]),
    "yelp_polarity": ('"2","They \\""fixed\\"" it.\\nFor free"\n"1","Bad"\n', ["positive", "negative"]),
    "yelp_review_full": ('"5","They \\""fixed\\"" it.\\nFor free"\n"1","Bad"\n', ["5 stars", "1 star"]),
    "dbpedia_14": ('1,"E. D. Abbott"," Abbott of Farnham."\n14,"A Book","It is."\n', ["Company", "WrittenWork"]),
    "yahoo_answers_topics": (
        '"5","why?","","because"\n"1","who","you\\nknow","he"\n',
        ["Computers & Internet", "Society & Culture"],
    ),
    "amazon_review_full": ('"3","ok","It is ok"\n"4","good","It is"\n', ["3 stars", "4 stars"]),
}
ZHANG_TEXTS = {
    "ag_news": ["Wall St. Short-sellers, Wall\\band", 'Moon A "big" step'],
    "yelp_polarity": ['They "fixed" it.\nFor free', "Bad"],
    "yelp_review_full": ['They "fixed" it.\nFor free', "Bad"],
    "dbpedia_14": ["E. D. Abbott  Abbott of Farnham.", "A Book It is."],
    "yahoo_answers_topics": ["why? because", "who you\nknow he"],
    "amazon_review_full": ["ok It is ok", "good It is"],
}
NEWS = '"1","title","description {}"\n'


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of the test's folder and returns the folder."""

    def write(name, content):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        return tmp_path

    return write


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that sets what the hub answers: cells by column, or an exception; what was asked is its list."""
    module = pytest.importorskip("datasets")
    monkeypatch.setattr(module.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    asked = []

    def answer(cells):
        def loaded(name, config, split):
            asked.append((name, config, split))
            if isinstance(cells, Exception):
                raise cells
            return module.Dataset.from_dict(cells)

        monkeypatch.setattr(module, "load_dataset", loaded)
        return asked

    return answer


def fails(source, *parts, **options):
    with pytest.raises(UserError) as caught:
        load(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == [], message


# --- what there is -------------------------------------------------------------------------------------------------


def test_every_task_has_known_measures_or_is_about_spans():
    for task in TASKS.values():
        assert set(task.metrics) <= set(MEASURES)
        assert (task.problem is ProblemType.QUESTION_ANSWERING) == (not task.metrics)
        assert (task.problem is ProblemType.SINGLE_LABEL) == (len(task.names) >= 2)
    assert {name: TASKS[f"glue/{name}"].metrics for name in ("cola", "mrpc", "stsb")} == {
        "cola": ("mcc",),
        "mrpc": ("accuracy", "f1"),
        "stsb": ("pearson", "spearman"),
    }


def test_a_source_of_a_task_names_split_and_folder():
    assert task_source("glue/mrpc", training=True) == "task:glue/mrpc@train"
    assert task_source("glue/mrpc", training=False) == "task:glue/mrpc@validation"
    assert task_source("glue/mnli", training=False) == "task:glue/mnli@validation_matched"
    assert task_source("ag_news", training=False, folder="/data/ag") == "task:ag_news@test:/data/ag"
    assert task_source("glue/mnli@validation_mismatched", training=False) == "task:glue/mnli@validation_mismatched"
    named = parse_source("task:ag_news@train:C:\\data")
    assert (named.task.name, named.split, named.folder) == ("ag_news", "train", Path("C:\\data"))
    assert parse_source("rows.jsonl") is None and task_of("rows.jsonl") is None
    assert task_of("task:glue/cola@train:/data").name == "glue/cola"
    assert task_of("task:forgotten@train") is None


def test_an_unknown_task_or_split_says_which_there_are():
    for name, hint in {"mrpc": "'glue/mrpc'", "squad_v3": "'squad_v2'", "poems": "ag_news"}.items():
        with pytest.raises(UserError, match=hint):
            task_source(name, training=True)
    fails("task:glue/mrpc@dev", "no split 'dev'", "train, validation, test")
    fails("task:glue/mrpc", "no split named", "train, validation, test")


# --- layouts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", GLUE)
def test_glue_files_are_read_with_quotes_as_plain_characters(config, write):
    content, texts, pairs, labels = GLUE[config]
    task = TASKS[f"glue/{config}"]
    stem = task.evaluation.replace("validation", "dev")
    folder = write(f"glue_data/{task.release.folder}/{stem}.tsv", content) / "glue_data"
    for place in (folder, folder / task.release.folder):  # the whole of GLUE, or the task's own folder
        rows = load(task_source(task.name, training=False, folder=str(place)))
        assert (rows.texts, rows.pairs, rows.labels) == (texts, pairs, labels)
        assert rows.label_names == (task.names or None)


@pytest.mark.parametrize("name", ZHANG)
def test_the_releases_of_zhang_are_read_without_a_header(name, write):
    content, labels = ZHANG[name]
    task = TASKS[name]
    write(f"{task.release.folder}/classes.txt", "\n".join(task.names))
    folder = write(f"{task.release.folder}/train.csv", content)
    rows = load(task_source(name, training=True, folder=str(folder)))
    assert (rows.texts, rows.labels) == (ZHANG_TEXTS[name], labels)


@pytest.mark.parametrize("name", [f"glue/{config}" for config in GLUE] + list(ZHANG))
def test_the_hub_a_saved_folder_and_parquet_give_the_same_rows(name, hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    task = TASKS[name]
    columns = [*task.shape.texts, *([task.shape.pair] if task.shape.pair else [])]
    cells = {column: [f"{column} one", f"{column} two"] for column in columns}
    cells[task.shape.label] = [task.shape.first + 1, task.shape.first] if task.names else [2.5, 4.0]
    asked = hub(cells)
    source = task_source(name, training=True)
    rows = load(source)
    assert asked == [(task.hub, task.config, "train")]
    assert rows.texts == [" ".join(f"{column} {number}" for column in task.shape.texts) for number in ("one", "two")]
    assert rows.labels == ([task.names[1], task.names[0]] if task.names else [2.5, 4.0])

    made = datasets.DatasetDict({"train": datasets.Dataset.from_dict(cells)})
    made.save_to_disk(tmp_path / "saved")
    made["train"].to_parquet(tmp_path / "clone" / (task.config or "data") / "train-00000-of-00001.parquet")
    for folder in ("saved", "clone"):
        same = load(task_source(name, training=True, folder=str(tmp_path / folder)))
        assert (same.texts, same.pairs, same.labels) == (rows.texts, rows.pairs, rows.labels)


def test_plain_rows_of_ours_do_too(write):
    rows = [{"text": "a", "text_pair": "b", "label": 1}, {"text": "c", "text_pair": "d", "label": "not_equivalent"}]
    folder = write("test.jsonl", "\n".join(map(json.dumps, rows)))
    found = load(f"task:glue/mrpc@test:{folder}")
    assert (found.texts, found.pairs, found.labels) == (["a", "c"], ["b", "d"], ["equivalent", "not_equivalent"])


def test_mrpc_from_microsoft_is_split_by_the_validation_ids(write):
    lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String", *(f"1\t{i}\t{i}0\tfirst {i}\tsecond {i}" for i in "123")]
    folder = write("msr_paraphrase_train.txt", "\ufeff" + "\r\n".join(lines) + "\r\n")
    write("msr_paraphrase_test.txt", "\n".join(lines[:2]))
    assert len(load(f"task:glue/mrpc@train:{folder}")) == 3
    assert len(load(f"task:glue/mrpc@test:{folder}")) == 1
    fails(f"task:glue/mrpc@validation:{folder}", "no split 'validation'", "dev.tsv")
    write("dev_ids.tsv", "2\t20\n")
    assert load(f"task:glue/mrpc@validation:{folder}").texts == ["first 2"]
    assert load(f"task:glue/mrpc@train:{folder}").pairs == ["second 1", "second 3"]


def test_classes_keep_the_order_of_the_data_set(write):
    content = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
    content += "".join(f"{i % 2}\t{i}\t{i}\tfirst {i}\tsecond {i}\n" for i in range(200))
    roles = split_roles(load(f"task:glue/mrpc@train:{write('train.tsv', content)}"))
    assert all(rows.label_names == ("not_equivalent", "equivalent") for rows in roles.values())
    # One class only is no mistake: the others are known to exist.
    one = load(f"task:ag_news@train:{write('train.csv', ''.join(NEWS.format(i) for i in range(200)))}")
    assert len(next(iter(split_roles(one).values())).label_names) == 4


def test_broken_and_blank_rows_of_a_release_are_counted(write, caplog):
    content = (
        "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\ta\tb\t0\n1\t3\n2\t5\t6\t\ty\t1\n3\t7\t8\tz\t\t1\n"
    )
    with caplog.at_level(logging.WARNING):
        rows = load(f"task:glue/qqp@train:{write('train.tsv', content)}")
    assert (rows.texts, rows.pairs) == (["a", "z"], ["b", ""])
    assert "2 broken or blank rows are left out, the first in line 3" in caplog.text


def test_columns_need_no_label_where_nobody_asks_for_one(write):
    folder = write("test.tsv", "index\tsentence\n0\tone\n1\ttwo\n")
    assert load(f"task:glue/cola@test:{folder}").labels is None
    assert load(f"task:glue/sst2@test:{folder}", Columns(label=None)).labels is None
    fails(f"task:glue/cola@test:{folder}", "no labels", "--task glue/cola", labels_required=True)


def test_labels_that_the_hub_withholds_are_none(hub):
    hub({"sentence": ["a", "b"], "label": [-1, -1], "idx": [0, 1]})
    assert load("task:glue/sst2@test").labels is None


def test_squads_files_are_found_by_split_and_version(write):
    folder = write("train-v1.1.json", "{}")
    write("dev-v1.1.json", "{}")
    write("squad_v2/dev-v2.0.json", "{}")
    write("own/test.json", "{}")
    write("own/train.json", "{}")
    found = {
        source: str(task_questions(parse_source(source)).relative_to(folder))
        for source in (
            f"task:squad@train:{folder}",
            f"task:squad@validation:{folder}",
            f"task:squad_v2@validation:{folder}",
        )
    }
    assert list(found.values()) == ["train-v1.1.json", "dev-v1.1.json", "squad_v2/dev-v2.0.json"]
    assert task_questions(parse_source(f"task:squad@train:{folder / 'own'}")) == folder / "own" / "train.json"
    with pytest.raises(UserError, match=r"train-v2.0.json"):
        task_questions(parse_source(f"task:squad_v2@train:{folder}"))


def test_squad_of_the_hub_or_in_parquet_is_rows_of_questions(hub, tmp_path):
    datasets = pytest.importorskip("datasets")
    answers = [{"text": ["b"], "answer_start": [2]}, {"text": [], "answer_start": []}]
    cells = {"id": ["1", "2"], "context": ["a b", "c d"], "question": ["which?", "where?"], "answers": answers}
    asked = hub(cells)
    table = task_questions(parse_source("task:squad_v2@validation"))
    assert asked == [("rajpurkar/squad_v2", None, "validation")]
    datasets.Dataset.from_dict(cells).to_parquet(tmp_path / "squad_v2" / "validation-00000-of-00001.parquet")
    saved = task_questions(parse_source(f"task:squad_v2@validation:{tmp_path}"))
    for found in (table, saved):
        assert found.cells["question"] == ["which?", "where?"] and found.cells["answers"] == answers


# --- mistakes ------------------------------------------------------------------------------------------------------


def test_no_network_is_one_line_that_names_the_option(hub):
    hub(ConnectionError("Couldn't reach 'nyu-mll/glue' on the Hub\nand more"))
    fails("task:glue/mrpc@train", "glue/mrpc", "--data-dir FOLDER", "Couldn't reach")


def test_a_folder_without_the_split_says_what_it_looked_for(write, tmp_path):
    fails(f"task:glue/rte@train:{tmp_path / 'nowhere'}", "nowhere", "no such folder", "--data-dir")
    fails(f"task:glue/rte@train:{write('other.txt', '')}", "train.tsv", "Parquet", "--data-dir")


@pytest.mark.parametrize(
    ("task", "file", "content", "parts"),
    [
        ("glue/rte", "train.tsv", "sentence\tlabel\na\t1\n", ["train.tsv", "no column 'sentence1'", "'sentence'"]),
        ("glue/rte", "train.tsv", "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tyes\n", ["line 2", "'yes'", "0 to 1"]),
        ("glue/stsb", "train.tsv", "sentence1\tsentence2\tscore\na\tb\thigh\n", ["line 2", "'high'", "amounts"]),
        ("ag_news", "train.csv", "Class Index,Title,Description\n3,a,b\n", ["line 1", "'Class Index'", "1 to 4"]),
        ("ag_news", "train.csv", '"0","a","b"\n', ["line 1", "'0'", "World"]),
        ("yelp_polarity", "train.csv", '"1","a","b"\n', ["line 1", "3 cells under 2 columns"]),
        ("glue/sst2", "train.tsv", "sentence\tlabel\n", ["no rows of glue/sst2"]),
    ],
)
def test_a_file_that_is_not_the_tasks_names_its_place(task, file, content, parts, write):
    fails(f"task:{task}@train:{write(file, content)}", *parts)


def test_a_task_knows_its_columns(write):
    folder = write("train.tsv", "sentence\tlabel\na\t1\n")
    fails(f"task:glue/sst2@train:{folder}", "--text-column", columns=Columns("body"))


def test_a_task_about_spans_is_no_rows_of_labels():
    fails("task:squad@train", "span", problem=ProblemType.SINGLE_LABEL)
