"""Models of spans of every architecture: transformers' answers, transformers' folders, in both engines."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from tests.kit.families import FAMILIES, family, save_family, shake, tokenizer_of
from ziggurat import native
from ziggurat.data import SPAN_ENDS, pack
from ziggurat.encoder import WEIGHTS, Manifest, full_flops, load_hf, load_model, save_model
from ziggurat.encoder.flops import span_full_flops, span_rung_flops
from ziggurat.encoder.torch.model import SPAN_HEAD
from ziggurat.engine import OpenedModel, answer_ladder
from ziggurat.policies import ExitRule
from ziggurat.problems import PLACE, SCORE
from ziggurat.problems.spans import ENTROPIES
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.types import ProblemType

ENGINES = ["torch", *([] if native.why_missing() else ["native"])]
PRUNED = PruningConfig(per_layer=(0.7, 0.85, 1.0))
QUESTIONS = ["ba ki", "ba, st", "mi"]
CONTEXTS = ["ki ba lo, ba ki mu st ba ki ba " * 2, "st ba", "ba ki ba, " * 9]
PAIRS = list(zip(QUESTIONS, CONTEXTS, strict=True))
RUNGS = 3


def theirs(name):
    """transformers' class of a model of spans of this family."""
    return getattr(transformers, f"{FAMILIES[name][0]}ForQuestionAnswering")


def questioner(name):
    """A random model of spans of this family, as transformers has it."""
    config = family(name).config
    config.num_labels = 2
    torch.manual_seed(0)
    model = theirs(name)(config).eval()
    shake(model)
    return model


@pytest.fixture(scope="module", params=FAMILIES)
def saved(request, tmp_path_factory):
    """(name, a finished folder with exits and pruning) of each family; its checkpoint lies beside it."""
    work = tmp_path_factory.mktemp(request.param)
    questioner(request.param).save_pretrained(work / "checkpoint")
    tokenizer_of(request.param).save_pretrained(work / "checkpoint")
    model = load_hf(work / "checkpoint", 2, SPAN_HEAD, (1, 2), pruning=PRUNED, problem=ProblemType.QUESTION_ANSWERING)
    torch.manual_seed(1)
    shake(model.exits)
    manifest = Manifest(
        labels=SPAN_ENDS,
        pairs=True,
        max_length=32,
        head_kind=SPAN_HEAD,
        head_layers=(1, 2),
        fingerprint="",
        problem_type=ProblemType.QUESTION_ANSWERING,
        spans=SpanConfig(32, 4, 8, answer=5),
        pruning=PRUNED,
    )
    save_model(model, manifest, np.array([1], dtype=np.uint64), work / "checkpoint", work / "model")
    return request.param, work / "model"


@pytest.fixture(scope="module", params=ENGINES)
def answerer(request, saved):
    """The folder, open in one engine."""
    return OpenedModel.from_pretrained(saved[1], "cpu", threads=1, backend=request.param)


@torch.no_grad()
def said_by_transformers(name, folder, tokens):
    """Logits (length, 2) of a window (length, 3)."""
    model, ids = theirs(name).from_pretrained(folder).eval(), torch.from_numpy(tokens)[None]
    kinds = model.config.to_dict().get("type_vocab_size", 0)
    said = model(input_ids=ids[..., 0], **({"token_type_ids": ids[..., 1] * (kinds > 1)} if kinds else {}))
    return torch.stack([said.start_logits[0], said.end_logits[0]], dim=1)


def test_full_depth_says_what_transformers_says(saved, answerer):
    windows = answerer.encode(PAIRS)
    assert len(windows.tokens) > len(QUESTIONS)
    outcomes = answerer.run(windows, ExitRule.full_depth(RUNGS, "span-entropy"))
    for row in range(len(QUESTIONS)):
        window, start, end = outcomes.readings[row, PLACE].astype(int).tolist()
        said = said_by_transformers(*saved, windows.tokens[windows.edges[row] + window])
        assert outcomes.readings[row, SCORE] == pytest.approx(float(said[start, 0] + said[end, 1]), abs=1e-3)


@pytest.mark.slow
@torch.no_grad()
def test_every_logit_equals_that_of_transformers(saved):
    model, windows = load_model(saved[1])[0], OpenedModel.from_pretrained(saved[1]).encode(PAIRS)
    mine = model.full_logits(pack(windows.tokens))
    for grid, tokens in zip(mine, windows.tokens, strict=True):
        may = tokens[:, 2] > 0
        expected = said_by_transformers(*saved, tokens)
        assert torch.allclose(grid[:, : len(tokens)].T[may], expected[may], atol=1e-5, rtol=1e-5)


def test_pruned_and_early_answers_are_those_of_the_specification(answerer):
    windows = answerer.encode(PAIRS)
    every = answerer.every_rung(windows, tokens=answerer.token_rule).readings[..., ENTROPIES].max(axis=-1)
    sure = np.sort(every[:, 0])
    # Some leave at the first rung: the threshold lies between two of them, where no rounding decides.
    rule = replace(ExitRule.uniform("span-entropy", float(sure[:2].mean()), RUNGS), tokens=answerer.token_rule)
    outcomes = answerer.run(windows, rule)
    for row in range(len(QUESTIONS)):
        first, last = windows.edges[row], windows.edges[row + 1]
        reading, rung = answer_ladder([answerer.backend], [windows.tokens[first:last]], rule, row)
        assert rung == outcomes.rungs[row]
        assert outcomes.readings[row, PLACE].tolist() == reading[PLACE].tolist()
        assert np.abs(outcomes.readings[row] - reading).max() < 1e-4
    assert len(set(outcomes.rungs)) > 1 and outcomes.token_counts[:, 1].sum() < outcomes.token_counts[:, 0].sum()


def test_both_engines_say_the_same_at_every_rung(saved, answerer):
    windows = answerer.encode(PAIRS)
    other = OpenedModel.from_pretrained(saved[1], "cpu", threads=1, backend="torch")
    mine, expected = (one.every_rung(windows, tokens=one.token_rule) for one in (answerer, other))
    assert np.array_equal(mine.token_counts, expected.token_counts)
    assert np.abs(mine.readings - expected.readings).max() < 1e-3


def test_the_folder_loads_whole_by_the_class_that_it_names(saved):
    name, folder = saved
    assert json.loads((folder / "config.json").read_text())["architectures"] == [theirs(name).__name__]
    _, notes = theirs(name).from_pretrained(folder, output_loading_info=True)
    assert not notes["missing_keys"] and not notes["unexpected_keys"]
    source, written = load_file(folder.parent / "checkpoint" / WEIGHTS), load_file(folder / WEIGHTS)
    assert source.keys() == written.keys()
    assert all(torch.equal(source[part], written[part]) for part in source)


def test_an_answer_stands_in_its_context_where_it_says(answerer):
    for answer, context in zip(answerer.answer(PAIRS, "full"), CONTEXTS, strict=True):
        assert answer.text and context[answer.start : answer.end] == answer.text


def test_an_encoder_without_a_span_head_gets_a_fresh_one(saved, tmp_path):
    name = saved[0]
    checkpoint = save_family(name, tmp_path)  # a classifier of three labels
    model = load_hf(checkpoint, 2, SPAN_HEAD, (), problem=ProblemType.QUESTION_ANSWERING)
    assert model.state_dict().keys() >= {"classifier.classes.weight", "classifier.classes.bias"}
    assert model.classifier.classes.weight.shape == (2, model.spec.hidden)
    assert not any(part.startswith("classifier.pool") for part in model.state_dict())
    assert not model.classifier.classes.bias.any()


def test_flops_are_those_of_the_layers_and_of_all_tokens_heads(saved):
    spec = load_model(saved[1])[0].spec
    lengths = np.array([3, 40])
    kept = np.repeat(lengths[:, None], spec.layers + 1, axis=1)
    layers = full_flops(spec, 2, lengths) - 2 * spec.hidden * (spec.hidden + 2)  # less a classifier of one token
    dense = 2 * spec.hidden**2 * lengths * saved[0].startswith("modernbert")
    exit_head = 4 * spec.hidden * lengths
    assert span_full_flops(spec, lengths).tolist() == (layers + dense + exit_head).tolist()
    rungs = span_rung_flops(spec, lengths, kept, (1, 2, spec.layers), (True, False))
    assert (rungs[:, -1] - span_full_flops(spec, lengths)).tolist() == exit_head.tolist()
    assert (np.diff(rungs[:, :2], axis=1) > 0).all()
