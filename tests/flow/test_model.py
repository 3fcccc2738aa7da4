"""The front door: one class for every problem, rows in memory, models that come back."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

import ziggurat
from tests.kit.questions import make_contexts, make_questions, save_span_folder
from ziggurat import AdaptiveModel, Promise, UserError
from ziggurat.bench.bench import bench
from ziggurat.encoder import hub, trained_rows
from ziggurat.serve.predict import predict
from ziggurat.training import make_cascade


@pytest.fixture(scope="module")
def rows(rows_file) -> list[dict]:
    return [json.loads(line) for line in rows_file.read_text("utf-8").splitlines()]


@pytest.fixture(scope="module")
def trained(tiny_checkpoint, tiny_recipe, rows, tmp_path_factory) -> AdaptiveModel:
    """A model that was trained on rows in memory."""
    options = ziggurat.TrainOptions(device="cpu", progress=False)
    out = tmp_path_factory.mktemp("trained") / "model"
    return ziggurat.train(rows, str(tiny_recipe), out=out, model=tiny_checkpoint, options=options)


@pytest.fixture
def own(trained, tmp_path) -> AdaptiveModel:
    """A copy of the trained model that a test may change."""
    folder = tmp_path / "own"
    shutil.copytree(trained.folder, folder)
    return ziggurat.load(folder, device="cpu")


def test_load_is_from_pretrained(model_folder, texts):
    loaded = ziggurat.load(model_folder, backend="torch", device="cpu", threads=1)
    assert type(loaded) is AdaptiveModel and loaded.folder == model_folder.absolute()
    assert loaded.backend.engine == "torch" and loaded.points[:1] == ("full",)
    again = AdaptiveModel.from_pretrained(model_folder, "cpu", threads=1, backend="torch")
    assert loaded.answer(texts, "full") == again.answer(texts, "full")


def test_predict_gives_what_scikit_learn_gives(model_folder, texts):
    model = ziggurat.load(model_folder, device="cpu")
    answers = model.answer(texts, "full")
    labels, shares = model.predict(texts, "full"), model.predict_proba(texts, at="full")
    assert labels.tolist() == [answer.label for answer in answers] and labels.shape == (len(texts),)
    assert shares.shape == (len(texts), 3) and np.array_equal(shares, answers.probabilities)
    assert np.array(model.labels)[shares.argmax(axis=1)].tolist() == labels.tolist()
    assert model.predict([], "full").tolist() == [] and model.predict_proba([], "full").shape == (0, 3)


def test_spans_are_answered_by_the_same_class(make_checkpoint, tmp_path):
    model = ziggurat.load(save_span_folder(tmp_path, make_checkpoint), device="cpu")
    asked = list(zip(make_questions(), make_contexts(), strict=True))
    assert model.predict(asked, "full").tolist() == [answer.text for answer in model.answer(asked, "full")]
    with pytest.raises(UserError, match="predict_proba: a model of question_answering gives no probabilities"):
        model.predict_proba(asked, "full")
    assert model.explain(asked[0], "full").to_dict()["tokens"]


def test_a_training_on_rows_in_memory_is_that_on_their_file(trained, tiny_checkpoint, tiny_recipe, rows_file, tmp_path):
    options = ziggurat.TrainOptions(device="cpu", progress=False)
    again = ziggurat.train(rows_file, str(tiny_recipe), out=tmp_path / "m", model=tiny_checkpoint, options=options)
    assert trained.manifest.fingerprint == again.manifest.fingerprint
    assert np.array_equal(trained_rows(trained.folder), trained_rows(again.folder))
    assert trained.manifest.training["data"]["source"] == "rows"


def test_rows_that_trained_are_known_again(trained, rows):
    seen = trained.evaluate(rows, "full").seen_in_training
    assert len(trained_rows(trained.folder)) <= seen < len(rows)  # a row that is there twice counts twice
    assert trained.evaluate([row | {"text": row["text"] + " anew"} for row in rows], "full").seen_in_training == 0


def test_evaluate_takes_rows_in_memory_and_uses_the_open_model(trained, rows, rows_file, monkeypatch):
    whole, read = trained.evaluate(rows, "full"), trained.evaluate(str(rows_file), at="full")
    assert whole.figures == read.figures and (whole.data, read.data) == ("rows", str(rows_file))
    columns = ziggurat.Columns(text="body", label="kind")
    renamed = [{"body": row["text"], "kind": row["label"]} for row in rows]
    monkeypatch.setattr(AdaptiveModel, "from_pretrained", None)  # it is not opened again
    assert trained.evaluate(renamed, "full", columns).figures == whole.figures
    with pytest.raises(UserError, match=r"rows, row 1: unknown label 'mist'"):
        trained.evaluate([{"text": "a", "label": "mist"}], "full")


def test_calibrate_returns_a_model_with_the_points(own, rows):
    before = own.points
    calibrated = own.calibrate(rows, Promise({"loose": 0.5}, criterion="agreement"))
    assert calibrated.points == (*before, "loose") and own.points == before
    assert calibrated.calibration.points[0].name == "loose" and own.calibration is None
    texts = [row["text"] for row in rows]
    assert np.array_equal(calibrated.predict(texts, "loose"), ziggurat.load(own.folder).predict(texts, "loose"))
    assert type(calibrated) is AdaptiveModel


def test_one_number_is_a_promise():
    assert Promise(max_drop=0.01).targets == {"fast": 0.01} and Promise(max_drop=0.025).targets == {"drop-2.5": 0.025}
    assert Promise().targets == {"exact": 0.0, "balanced": 0.005, "fast": 0.01}
    with pytest.raises(UserError, match="must be more than 0 and less than 1"):
        Promise(max_drop=1.5)


def test_explain_tells_of_the_open_model(trained):
    told = trained.explain("bat kin", "full").to_dict()
    assert told["layers"] == told["of_layers"] and told["tokens"][1]["piece"] == "bat"


def test_adapt_and_cascade_return_models(trained, tiny_checkpoint, static_folder, rows, tmp_path):
    options = ziggurat.TrainOptions(device="cpu", progress=False)
    texts = [row["text"] for row in rows]
    adapted = ziggurat.adapt(tiny_checkpoint, texts, out=tmp_path / "adapted", options=options)
    assert type(adapted) is AdaptiveModel and len(adapted.rungs) > 1
    whole = ziggurat.cascade([static_folder, adapted], out=tmp_path / "cascade")
    assert len(whole.tiers) == 2 and whole.points == ("full",)
    assert np.array_equal(whole.predict(texts, "full"), adapted.predict(texts, "full"))


def test_columns_go_to_training(tiny_checkpoint, rows, tmp_path):
    options = ziggurat.TrainOptions(device="cpu", progress=False)
    with pytest.raises(UserError, match=r"rows: no column 'body'; it has 'text', 'label'"):
        ziggurat.train(rows, out=tmp_path / "m", columns=ziggurat.Columns(text="body"), options=options)
    assert not list(tmp_path.iterdir())


def test_save_pretrained_writes_what_load_opens(own, cascade_folder, rows, tmp_path):
    texts = [row["text"] for row in rows]
    own.save_pretrained(tmp_path / "saved")
    assert ziggurat.load(tmp_path / "saved").answer(texts, "full") == own.answer(texts, "full")
    whole = ziggurat.load(cascade_folder)
    whole.save_pretrained(tmp_path / "cascade")
    assert len(ziggurat.load(tmp_path / "cascade").tiers) == 2
    with pytest.raises(UserError, match="exists and is not empty"):
        own.save_pretrained(tmp_path / "saved")


def test_push_to_hub_uploads_what_load_opens(own, texts, monkeypatch):
    sent = []

    class Client:
        def __init__(self, token):
            sent.append(token)

        def create_repo(self, name, private, exist_ok):
            sent.append((name, private, exist_ok))

        def upload_folder(self, repo_id, folder_path, commit_message):
            sent.append(ziggurat.load(folder_path).answer(texts, "full") == own.answer(texts, "full"))
            return f"https://hub/{repo_id}"

    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "HfApi", Client)
    assert own.push_to_hub("me/news", private=True, token="secret") == "https://hub/me/news"
    assert sent == ["secret", ("me/news", True, True), True]


def test_a_hub_that_cannot_be_reached_is_a_users_error(own):
    with pytest.raises(UserError, match=r"me/news: the hub does not take the model; check the name, the network"):
        own.push_to_hub("me/news")
    with pytest.raises(UserError, match=r"a//b: not a name that the hub can have"):
        hub.upload(own.folder, "a//b", None, None)


def test_a_monitor_answers_and_watches(own, rows):
    model = own.calibrate(rows, Promise({"loose": 0.5}, criterion="agreement"))
    monitor = ziggurat.Monitor(model, "loose")
    texts = [row["text"] for row in rows]
    assert monitor.answer(texts) == model.answer(texts, "loose", batch_size=32) and monitor.alarms == []


def test_a_stream_answers_as_answer(trained, texts):
    answers = trained.answer(texts, "full")
    streamed = dict(trained.stream([texts[:5], texts[5:]], at="full"))
    assert [streamed[index].label for index in range(len(texts))] == answers.labels.tolist()


def test_a_model_is_pickled_and_copied_as_what_it_is(trained, texts):
    for other in (pickle.loads(pickle.dumps(trained)), copy.copy(trained), copy.deepcopy(trained)):
        assert type(other) is AdaptiveModel and other.answer(texts, "full") == trained.answer(texts, "full")


def test_a_model_without_a_folder_says_so(trained):
    bare = AdaptiveModel(trained.tiers)
    for use in (lambda: bare.folder, lambda: bare.evaluate([]), lambda: ziggurat.cascade([bare, trained], out="x")):
        with pytest.raises(UserError, match=r"the model is in no folder; make it with ziggurat\.load"):
            use()


def test_importing_loads_nothing_and_loading_no_torch(model_folder):
    code = (
        "import sys; before = set(sys.modules); import ziggurat\n"
        "new = {name for name in set(sys.modules) - before if name.startswith('ziggurat') or name == 'numpy'}\n"
        "assert new == {'ziggurat'}, new\n"
        "model = ziggurat.load(sys.argv[1], device='cpu', backend='native'); model.predict(['bat kin'], 'full')\n"
        "rooms = ['ziggurat.' + room for room in ('measure', 'calibrate', 'training', 'explain', 'bench')]\n"
        "late = [n for n in sys.modules if n.split('.')[0] in ('torch', 'transformers', 'scipy', 'datasets')]\n"
        "late += [n for n in sys.modules if n in ('statistics', 'tqdm', 'ziggurat.data.sources', *rooms)]\n"
        "assert not late, late"
    )
    subprocess.run([sys.executable, "-c", code, str(model_folder)], check=True)


def test_every_public_name_is_there_and_documented():
    for name in ziggurat.__all__:
        assert getattr(ziggurat, name).__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ziggurat.nothing  # noqa: B018


def test_commands_functions_take_rows_in_memory(own, rows, rows_file, static_folder, tmp_path):
    place, options = str(own.folder), ziggurat.ModelOptions("cpu", threads=1)
    answered = predict(place, source=rows, operating_point="full", options=options).answers
    assert [answer.fields["label"] for answer in answered] == own.predict(
        [row["text"] for row in rows], "full"
    ).tolist()
    timed = bench(place, rows, (4,), [], options=options, timed_texts=8, repeats=1).rows
    assert {(row.to_dict()["data"], row.to_dict()["split"]) for row in timed} == {("rows", "test")}
    made = make_cascade([str(static_folder), place], tmp_path / "cascade", rows)
    assert made.rows_fitted == make_cascade([str(static_folder), place], tmp_path / "read", str(rows_file)).rows_fitted
