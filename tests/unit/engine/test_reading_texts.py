"""How texts get in: the tokenizer and the engine take turns, so that together they keep to the threads allowed."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ziggurat.cli.options import model_options
from ziggurat.data import batching
from ziggurat.data import tokenizer as tokenize
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.system import default_threads

repeatable = settings(
    derandomize=True, deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
words = st.lists(st.sampled_from(["bat", "kin", "river", ",", "xyz"]), min_size=1, max_size=30).map(" ".join)


class Busy:
    """Counts the threads at work, each part with all that it is allowed."""

    def __init__(self) -> None:
        self.now, self.most, self.calls = 0, 0, []
        self._lock = threading.Lock()

    @contextmanager
    def by(self, name: str, threads: int):
        with self._lock:
            self.now += threads
            self.most = max(self.most, self.now)
            self.calls.append(name)
        try:
            yield
        finally:
            with self._lock:
                self.now -= threads


def watch(classifier: OpenedModel, monkeypatch) -> Busy:
    """Every call of a tokenizer and of a backend of the classifier is counted from now on."""
    busy = Busy()

    def counted(owner, method, name, threads):
        real = getattr(owner, method)

        def call(*arguments):
            with busy.by(name, threads):
                return real(*arguments)

        monkeypatch.setattr(owner, method, call)

    for tier in classifier.tiers:
        counted(tier.backend, "advance", "engine", tier.backend.threads)
    for tokenizer in {id(tier.tokenizer): tier.tokenizer for tier in classifier.tiers}.values():
        counted(tokenizer, "_flat_ids", "tokenizer", classifier.backend.threads)
    return busy


@pytest.fixture(params=["model_folder", "cascade_folder"])
def folder(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def single(model_folder):
    return OpenedModel.from_pretrained(model_folder, "cpu", backend="native")


@pytest.fixture(scope="module")
def paired_model(pair_folder):
    return OpenedModel.from_pretrained(pair_folder, "cpu", backend="native")


@pytest.mark.parametrize("threads", [1, 2])
def test_tokenizer_and_engine_together_keep_to_the_threads(folder, texts, monkeypatch, threads):
    monkeypatch.setattr(tokenize, "CHUNK", 4)
    classifier = OpenedModel.from_pretrained(folder, "cpu", threads=threads, backend="native")
    before = threading.active_count()
    busy = watch(classifier, monkeypatch)
    classifier.answer(texts, classifier.rule("entropy", 0.3), batch_size=3)
    list(classifier.stream([texts[:7], texts[7:]], classifier.rule("entropy", 0.3)))
    assert busy.calls.count("tokenizer") >= 5 and busy.calls.count("engine") >= 3
    assert busy.most == threads
    assert threading.active_count() == before


def test_the_count_sees_two_at_once():
    busy = Busy()
    with busy.by("tokenizer", 2), busy.by("engine", 1):
        pass
    assert (busy.most, busy.now) == (3, 0)


def test_the_tokenizers_threads_are_limited_unless_the_user_has(monkeypatch):
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    batching.limit_threads(3)
    batching.limit_threads(5)
    assert os.environ["RAYON_NUM_THREADS"] == "3"


def test_a_model_changes_no_setting_of_the_process(model_folder, texts):
    before = dict(os.environ)
    OpenedModel.from_pretrained(model_folder, "cpu", threads=1, backend="native").answer(texts[:3], "full")
    assert dict(os.environ) == before


def test_a_command_limits_the_tokenizers_threads(monkeypatch):
    for threads, expected in ((2, "2"), (None, str(default_threads()))):
        monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
        assert model_options("auto", "float32", threads, "auto").threads == threads
        assert os.environ["RAYON_NUM_THREADS"] == expected
        monkeypatch.delenv("RAYON_NUM_THREADS")


def test_nothing_is_computed_where_a_text_is_none(folder, texts, monkeypatch):
    monkeypatch.setattr(tokenize, "CHUNK", 4)
    classifier = OpenedModel.from_pretrained(folder, "cpu", backend="native")
    busy = watch(classifier, monkeypatch)
    with pytest.raises(UserError, match=f"number {len(texts)} is not what the model reads"):
        classifier.answer([*texts, None], "full")
    assert busy.calls == []


@repeatable
@given(st.lists(words, min_size=1, max_size=20), st.integers(1, 7), st.booleans())
def test_answers_are_the_same_bits_however_texts_are_read(single, paired_model, monkeypatch, read, chunk, paired):
    classifier = paired_model if paired else single
    read = list(zip(read, reversed(read), strict=True)) if paired else read
    monkeypatch.setattr(tokenize, "CHUNK", 1024)
    together = classifier.answer(read, "fast")
    monkeypatch.setattr(tokenize, "CHUNK", chunk)
    alone = [answer for text in read for answer in classifier.answer([text], "fast")]
    for answers in (classifier.answer(read, "fast"), alone):
        assert [a.probabilities.tobytes() for a in answers] == [a.probabilities.tobytes() for a in together]
        assert [(a.label, _but_time(a.trace)) for a in answers] == [(a.label, _but_time(a.trace)) for a in together]


def test_traces_hold_pythons_own_numbers(folder, texts):
    for answer in OpenedModel.from_pretrained(folder, "cpu").answer(texts, "full"):
        trace = answer.trace
        assert {type(n) for n in (trace.rung, trace.read, trace.flops, *trace.tokens)} == {int}
        assert (type(trace.microseconds), type(trace.truncated)) == (float, bool)


def _but_time(trace) -> tuple:
    return trace.rung, trace.read, trace.tokens, trace.flops, trace.truncated
