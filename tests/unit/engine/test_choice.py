"""Which engine runs a model is decided once, by what is there and what is asked for."""

import sys

import pytest

from ziggurat import native
from ziggurat.engine import OpenedModel
from ziggurat.engine.tiers import choose_engine
from ziggurat.errors import UserError

MISSING = "nothing was compiled; reinstall"


@pytest.fixture
def compiled(monkeypatch):
    monkeypatch.setattr(native, "why_missing", lambda: None)


@pytest.fixture
def not_compiled(monkeypatch):
    monkeypatch.setattr(native, "why_missing", lambda: MISSING)


@pytest.fixture
def no_torch(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)


def refusal(*arguments) -> str:
    with pytest.raises(UserError) as caught:
        choose_engine(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_on_a_cpu_the_compiled_engine_is_first(compiled):
    assert choose_engine(device="cpu") == "native"
    assert choose_engine("auto", "cpu", "int8") == "native"
    assert choose_engine("torch", "cpu") == "torch"


def test_where_nothing_was_compiled_torch_serves(not_compiled):
    assert choose_engine(device="cpu") == "torch"
    assert MISSING in refusal("native", "cpu")
    assert MISSING in refusal("auto", "cpu", "int8")


def test_a_gpu_is_torchs(compiled):
    assert choose_engine(device="cuda") == "torch"
    assert "--backend torch" in refusal("native", "cuda")


def test_without_any_engine_both_ways_out_are_named(not_compiled, no_torch):
    message = refusal("auto", "cpu")
    assert "pip install '.[torch]' in Ziggurat's folder" in message and MISSING in message


def test_missing_torch_is_said_without_a_wrong_reason(compiled, no_torch):
    message = refusal("torch", "cpu")
    assert message.endswith("pip install '.[torch]' in Ziggurat's folder, or drop --backend and --device")


@pytest.mark.parametrize("wrong", [("mlx",), ("auto", "tpu"), ("auto", "cpu", "float8")])
def test_what_is_not_known_is_refused_with_what_is(compiled, wrong):
    assert "known: " in refusal(*wrong)


def test_int8_is_refused_in_torch(compiled):
    assert "needs the compiled engine" in refusal("torch", "cpu", "int8")


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_an_engine_can_be_forced(model_folder, texts, engine):
    if engine == "native" and native.why_missing():
        pytest.skip(native.why_missing())
    classifier = OpenedModel.from_pretrained(model_folder, "cpu", backend=engine)
    assert classifier.backend.engine == engine
    assert len(classifier.answer(texts)) == len(texts)
