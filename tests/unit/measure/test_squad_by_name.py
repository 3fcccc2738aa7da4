"""SQuAD by its name: the same questions as from its file."""

import json

import pytest

from ziggurat.data import holds_questions, read_questions
from ziggurat.errors import UserError

QUESTION = {"id": "q1", "question": "What shines?", "answers": [{"text": "The sun", "answer_start": 0}]}
SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "The sun shines.", "qas": [QUESTION]}]}]}


def parts(rows):
    return rows.texts, rows.pairs, rows.labels, rows.articles


def test_squad_is_read_by_its_name_from_its_file_or_as_rows(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets")
    (tmp_path / "dev-v1.1.json").write_text(json.dumps(SQUAD))
    source = f"task:squad@validation:{tmp_path}"
    by_name, by_file = read_questions(source), read_questions(str(tmp_path / "dev-v1.1.json"))
    assert parts(by_name) == parts(by_file)
    assert by_name.source == source
    answers = {"text": ["The sun"], "answer_start": [0]}
    row = {"id": "q1", "title": "t", "context": "The sun shines.", "question": "What shines?", "answers": answers}
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list([row]))
    assert parts(read_questions("task:squad@validation")) == parts(by_file)


def test_a_name_says_whether_it_is_about_spans(tmp_path):
    assert holds_questions("task:squad_v2@train") and not holds_questions("task:glue/mrpc@train")
    with pytest.raises(UserError, match="take squad or squad_v2"):
        read_questions(f"task:glue/mrpc@train:{tmp_path}")
