"""SQuAD files: what is read, what is refused, and that roles share no article."""

import json

import pytest

from tests.kit.questions import squad_content, write_squad
from ziggurat.data import SPAN_ENDS, Fractions, Role, as_dataset, holds_questions, load, read_questions, split_roles
from ziggurat.errors import UserError
from ziggurat.types import ProblemType

QUESTIONS = ProblemType.QUESTION_ANSWERING


def changed(tmp_path, change, **settings):
    """A file of `squad_content` after `change(first paragraph)`."""
    content = squad_content(2, **settings)
    change(content["data"][0]["paragraphs"][0])
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_every_question_is_read_with_its_context_and_answers(tmp_path):
    content = squad_content(3, unanswerable=True)
    path = tmp_path / "squad.json"
    path.write_text(json.dumps(content))
    rows = read_questions(str(path))
    asked = [(p["context"], q) for a in content["data"] for p in a["paragraphs"] for q in p["qas"]]
    assert rows.ids == [q["id"] for _, q in asked] and len(set(rows.articles)) == 3
    for row, (context, question) in enumerate(asked):
        assert (rows.texts[row], rows.pairs[row]) == (question["question"], context)
        assert [text for text, _ in rows.labels[row]] == [one["text"] for one in question["answers"]]
    assert sum(not some for some in rows.labels) == 6


def test_rows_as_hugging_face_has_them_are_the_same_questions(tmp_path):
    squad = write_squad(tmp_path / "squad.json", n_articles=2, unanswerable=True)
    rows = read_questions(str(squad))
    lines = [
        {
            "id": rows.ids[row],
            "title": rows.articles[row],
            "question": rows.texts[row],
            "context": rows.pairs[row],
            "answers": {"text": [text for text, _ in golds], "answer_start": [start for _, start in golds]},
        }
        for row, golds in enumerate(rows.labels)
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    other = read_questions(str(path))
    assert (other.ids, other.labels, other.articles) == (rows.ids, rows.labels, rows.articles)
    asked = load(str(path))
    digests = {as_dataset(one, Role.TEST, SPAN_ENDS, QUESTIONS).digest for one in (rows, other, asked)}
    assert len(digests) == 1
    other.labels[0] = ()
    assert as_dataset(other, Role.TEST, SPAN_ENDS, QUESTIONS).digest not in digests


def test_the_form_of_a_file_tells_questions_from_texts(tmp_path, rows_file):
    squad = write_squad(tmp_path / "squad.json", n_articles=1)
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "bat", "context": "bat kit", "answers": {"text": [], "answer_start": []}}\n')
    table = tmp_path / "rows.csv"
    table.write_text("question,context,label\nbat,bat kit,1\n")
    plain = tmp_path / "list.json"
    plain.write_text('[{"text": "bat", "label": 1}]')
    assert [holds_questions(str(one)) for one in (squad, rows)] == [True] * 2
    assert [holds_questions(str(one)) for one in (table, plain, rows_file, tmp_path / "none.json", "hf:x@y")] == [
        False
    ] * 5


def test_questions_without_answers_can_be_asked_but_not_measured(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "bat", "context": "bat kit"}\n')
    assert read_questions(str(path), answers_required=False).labels is None
    with pytest.raises(UserError, match="question '1' has no answers"):
        read_questions(str(path))


def test_an_answer_that_is_not_at_its_offset_is_refused(tmp_path):
    def shift(paragraph):
        paragraph["qas"][1]["answers"][0]["answer_start"] += 1

    with pytest.raises(UserError, match=r"squad.json: question '0-0-1': answer .* is not in its context at character"):
        read_questions(changed(tmp_path, shift))


@pytest.mark.parametrize("start", [-1, 10_000, "3", 2.0, None, True])
def test_an_offset_that_is_none_is_refused(tmp_path, start):
    def spoil(paragraph):
        paragraph["qas"][0]["answers"][0]["answer_start"] = start

    with pytest.raises(UserError, match="question '0-0-0'"):
        read_questions(changed(tmp_path, spoil))


@pytest.mark.parametrize(
    ("key", "value"), [("question", ""), ("question", " \n"), ("question", None), ("context", " ")]
)
def test_an_empty_question_or_context_is_named(tmp_path, key, value):
    def empty(paragraph):
        (paragraph if key == "context" else paragraph["qas"][0])[key] = value

    with pytest.raises(UserError, match=f"question '0-0-0': its {key} is empty"):
        read_questions(changed(tmp_path, empty))


@pytest.mark.parametrize("text", ["{", '{"rows": []}', '{"data": [{"title": "x"}]}', '{"data": 3}', '{"data": []}'])
def test_a_file_of_another_form_is_refused_in_one_line(tmp_path, text):
    path = tmp_path / "squad.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"squad\.json") as refused:
        read_questions(str(path))
    assert "\n" not in str(refused.value)


def test_answers_of_unequal_lengths_name_their_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "a", "context": "b", "answers": {"text": ["b"], "answer_start": []}}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl, line 1: answers must be"):
        read_questions(str(path))


def test_roles_share_no_article_and_so_no_context(tmp_path):
    rows = read_questions(str(write_squad(tmp_path / "squad.json", n_articles=60)))
    roles = split_roles(rows)
    assert set(roles) == {Role.TRAIN, Role.SELECT, Role.CERTIFY}
    assert sum(map(len, roles.values())) == len(rows)
    for role, mine in roles.items():
        assert mine.role is role
        others = [other for other in roles.values() if other is not mine]
        assert not set(mine.articles) & {article for other in others for article in other.articles}
        assert not set(mine.hashes.tolist()) & {one for other in others for one in other.hashes.tolist()}


def test_rows_without_titles_are_shared_out_by_context(tmp_path):
    path = tmp_path / "rows.jsonl"
    lines = [{"question": f"q{q}", "context": f"text {c}"} for c in range(60) for q in range(3)]
    path.write_text("\n".join(map(json.dumps, lines)))
    roles = split_roles(read_questions(str(path), answers_required=False))
    for mine in roles.values():
        assert all(mine.pairs.count(context) == 3 for context in mine.pairs)


def test_too_few_articles_for_a_role_are_refused(tmp_path):
    rows = read_questions(str(write_squad(tmp_path / "squad.json", n_articles=1)))
    with pytest.raises(UserError, match="1 articles are too few for a fraction of"):
        split_roles(rows)
    assert set(split_roles(rows, Fractions(1.0, 0.0, 0.0, 0.0))) == {Role.TRAIN}
