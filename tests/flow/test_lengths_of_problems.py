"""`report lengths` of answers that are no classes: their own figures and times, bucket by bucket."""

import json

import numpy as np
import pytest

from tests.kit.questions import save_span_folder, write_squad
from ziggurat import native
from ziggurat.analyses import EXITS, EXITS_AND_PRUNING, FULL_DEPTH, Exits, Request, lengths, quantiles
from ziggurat.data import read_questions
from ziggurat.engine import OpenedModel
from ziggurat.measure import ModelOptions
from ziggurat.problems import grades
from ziggurat.recipe import PruningConfig
from ziggurat.types import ProblemType

ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
LABELS = ("river", "stone", "tower")
WORDS = ("bat", "kin", "losh", "mur", "ness", "polm")
EDGES = (6, 12)
TIMES = ("milliseconds_per_text", "time_ratio")


def labelled(problem, folder):
    """40 rows of 1 to 18 words."""
    rng = np.random.default_rng(0)
    rows = []
    for n in rng.integers(1, 19, 40):
        label = (
            round(float(rng.random()), 2) if problem is ProblemType.REGRESSION else list(rng.choice(LABELS, 2, False))
        )
        rows.append({"text": " ".join(rng.choice(WORDS, n)), "label": label})
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path, rows


@pytest.fixture(scope="module")
def classifiers(tmp_path_factory, make_bert, make_checkpoint):
    """By problem a model folder with exits."""
    import torch

    from ziggurat.encoder import LABEL_RANGE, Manifest, load_hf, save_model

    made = {}
    for problem in (ProblemType.REGRESSION, ProblemType.MULTI_LABEL):
        work = tmp_path_factory.mktemp("classifier")
        names = ("value",) if problem is ProblemType.REGRESSION else LABELS
        checkpoint = make_checkpoint(make_bert(), work / "checkpoint")
        torch.manual_seed(1)
        model = load_hf(checkpoint, len(names), "pooler", (1, 2, 3), problem=problem)
        training = {LABEL_RANGE: [0.0, 1.0]} if problem is ProblemType.REGRESSION else {}
        manifest = Manifest(
            names, False, 24, "pooler", (1, 2, 3), fingerprint="", problem_type=problem, training=training
        )
        save_model(model, manifest, np.array([1], dtype=np.uint64), checkpoint, work / "model")
        made[problem] = work / "model"
    return made


@pytest.mark.parametrize("problem", [ProblemType.REGRESSION, ProblemType.MULTI_LABEL])
def test_numbers_and_sets_have_their_own_figures_in_each_bucket(classifiers, problem, tmp_path):
    folder, (path, rows) = classifiers[problem], labelled(problem, tmp_path)
    request = Request([str(folder)], str(path), tmp_path / "out", options=ModelOptions("cpu", threads=1))
    result = lengths(request, EDGES, Exits(threshold=0.2), timed_texts=4, repeats=1).to_dict()
    classifier = OpenedModel.from_pretrained(folder, "cpu", threads=1)
    truth = np.array(
        [r["label"] if problem is ProblemType.REGRESSION else [n in r["label"] for n in LABELS] for r in rows]
    )
    encoded = classifier.encode([row["text"] for row in rows])
    for setting in (FULL_DEPTH, EXITS):
        rule = classifier.rule_of(
            "full" if setting == FULL_DEPTH else classifier.rule(classifier.problem.scores[0], 0.2)
        )
        said = classifier.problem.predictions(classifier.run(encoded, rule).readings)
        for index, row in enumerate(row for row in result["rows"] if row["setting"] == setting):
            here = np.searchsorted(EDGES, encoded.lengths) == index
            expected = classifier.problem.figures(said, truth, here)
            assert {name: row[name] for name in expected} == pytest.approx(expected, abs=1e-5)
            assert row["quality"] == row[row["metric"]] and all(row[key] > 0 for key in TIMES)
            assert "accuracy" not in row and row["n"] == here.sum()
    table = (tmp_path / "out" / "lengths.md").read_text()
    assert ("Pearson" if problem is ProblemType.REGRESSION else "micro F1") in table and "full depth" in table
    assert quantiles(request, exits=Exits(threshold=0.2)).rows[0]["n"] > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_questions_have_em_f1_and_time_by_context_length(tmp_path, make_checkpoint, engine):
    folder = save_span_folder(tmp_path, make_checkpoint, PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0)))
    squad = write_squad(tmp_path / "squad.json", n_articles=4)
    content = json.loads(squad.read_text())
    for number, article in enumerate(content["data"]):  # of half of the articles contexts become twice as long
        for paragraph in article["paragraphs"] if number % 2 else []:
            paragraph["context"] += " " + paragraph["context"]
    squad.write_text(json.dumps(content))
    options = ModelOptions("cpu", threads=1, backend=engine)
    request = Request([str(folder)], str(squad), tmp_path / "out", options=options)
    result = lengths(request, (24,), Exits(threshold=0.9), timed_texts=4, repeats=1).to_dict()
    rows, answerer = (
        read_questions(str(squad)),
        OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=engine),
    )
    words = np.array([len(context.split()) for context in rows.pairs])
    for setting, rule in ((FULL_DEPTH, "full"), (EXITS_AND_PRUNING, answerer.rule("span-entropy", 0.9))):
        answers = answerer.answer(list(zip(rows.texts, rows.pairs, strict=True)), rule)
        exact, f1 = grades([one.text for one in answers], [[text for text, _ in some] for some in rows.labels])
        short, long = (row for row in result["rows"] if row["setting"] == setting)
        assert (short["span"], long["span"]) == ("24-24", "48-48")
        for row, here in ((short, words == 24), (long, words == 48)):
            assert (row["f1"], row["exact_match"]) == (f1[here].mean(), exact[here].mean())
            spent = np.mean([answer.trace.flops for answer, mine in zip(answers, here, strict=True) if mine])
            assert row["gflops_mean"] == pytest.approx(spent / 1e9)
            depth = [answer.trace.layers for answer, mine in zip(answers, here, strict=True) if mine]
            assert row["mean_layers"] == np.mean(depth) and all(row[key] > 0 for key in TIMES)
    table = (tmp_path / "out" / "lengths.md").read_text()
    assert "exact match" in table and "Lengths are tokens of contexts" in table
    assert quantiles(request, (0.5,), Exits(threshold=0.9)).to_dict()["rows"][0]["span"] == "24-24"
