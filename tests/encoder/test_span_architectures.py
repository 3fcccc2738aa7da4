"""Models of spans of every architecture: transformers' answers, transformers' folders, in both engines."""

import json

import numpy as np
import pytest
import torch
import transformers

from families import FAMILIES, family, save_family, shake, tokenizer_of
from ziggurat import native
from ziggurat.data.squad import SPAN_ENDS
from ziggurat.encoder.checkpoint import load_hf, save_model
from ziggurat.encoder.folder import Manifest
from ziggurat.encoder.span_model import SPAN_HEAD
from ziggurat.engine.questions import QuestionAnswerer
from ziggurat.engine.rules import never
from ziggurat.errors import UserError
from ziggurat.recipe import SpanConfig
from ziggurat.types import Problem

NAMES = [name for name, (classes, _) in FAMILIES.items() if classes != "ModernBert"]
ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
QUESTIONS = ["ba ki", "ba, st", "mi"]
CONTEXTS = ["ki ba lo, ba ki mu st ba ki ba " * 2, "st ba", "ba ki ba, " * 9]


def questioner(name):
    """A random model of spans of this family, as transformers has it."""
    config = family(name).config
    config.num_labels = 2
    torch.manual_seed(0)
    model = getattr(transformers, f"{FAMILIES[name][0]}ForQuestionAnswering")(config).eval()
    shake(model)
    return model


@pytest.fixture(scope="module", params=NAMES)
def saved(request, tmp_path_factory):
    """(name, a finished folder with exits) of each family."""
    work = tmp_path_factory.mktemp(request.param)
    questioner(request.param).save_pretrained(work / "checkpoint")
    tokenizer_of(request.param).save_pretrained(work / "checkpoint")
    model = load_hf(work / "checkpoint", 2, SPAN_HEAD, (1, 2), problem=Problem.QUESTION_ANSWERING)
    manifest = Manifest(
        labels=SPAN_ENDS,
        pairs=True,
        max_length=32,
        head_kind=SPAN_HEAD,
        head_layers=(1, 2),
        fingerprint="",
        problem_type=Problem.QUESTION_ANSWERING,
        spans=SpanConfig(32, 4, 8, answer=5),
    )
    save_model(model, manifest, np.array([1], dtype=np.uint64), work / "checkpoint", work / "model")
    return request.param, work / "model"


@pytest.mark.parametrize("engine", ENGINES)
def test_full_depth_says_what_transformers_says(saved, engine):
    name, folder = saved
    answerer = QuestionAnswerer.from_pretrained(folder, "cpu", threads=1, engine=engine)
    windows = answerer.encode(QUESTIONS, CONTEXTS)
    assert len(windows.tokens) > len(QUESTIONS)
    outcomes = answerer.run(windows, never(3, "span-entropy"))
    model = getattr(transformers, f"{FAMILIES[name][0]}ForQuestionAnswering").from_pretrained(folder).eval()
    for row in range(len(QUESTIONS)):
        window, start, end = outcomes.spans.places[row]
        ids = torch.from_numpy(windows.tokens[window])[None]
        kinds = {} if name == "distilbert" else {"token_type_ids": ids[..., 1] * (answerer.spec.segments > 1)}
        with torch.no_grad():
            said = model(input_ids=ids[..., 0], **kinds)
        score = float(said.start_logits[0, start] + said.end_logits[0, end])
        assert outcomes.spans.scores[row, 0] == pytest.approx(score, abs=1e-3)


def test_the_folder_names_the_class_that_loads_it_whole(saved):
    name, folder = saved
    kind = f"{FAMILIES[name][0]}ForQuestionAnswering"
    assert json.loads((folder / "config.json").read_text())["architectures"] == [kind]
    _, notes = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]


def test_an_answer_stands_in_its_context_where_it_says(saved):
    answerer = QuestionAnswerer.from_pretrained(saved[1], "cpu", threads=1)
    for answer, context in zip(answerer.predict(QUESTIONS, CONTEXTS, "full"), CONTEXTS, strict=True):
        assert answer.text and context[answer.start : answer.end] == answer.text


def test_modernbert_is_refused_in_one_line(tmp_path):
    name = next(name for name, (classes, _) in FAMILIES.items() if classes == "ModernBert")
    with pytest.raises(UserError, match="questions are not supported yet"):
        load_hf(save_family(name, tmp_path), 2, SPAN_HEAD, (), problem=Problem.QUESTION_ANSWERING)
