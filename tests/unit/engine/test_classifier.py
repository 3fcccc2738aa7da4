"""The front door: texts in, answers in their order, traces that say what was spent, and mistakes named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from ziggurat.encoder import path_flops, read_manifest, write_manifest
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.policies import ExitRule, softmax
from ziggurat.types import OperatingPoint

INF = float("inf")


@pytest.fixture(scope="module")
def classifier(model_folder) -> OpenedModel:
    """Reads single texts of at most 24 tokens; four rungs. Shared."""
    return OpenedModel.from_pretrained(model_folder, "cpu")


@pytest.fixture(scope="module")
def pair_classifier(pair_folder) -> OpenedModel:
    """Reads pairs of texts. Shared."""
    return OpenedModel.from_pretrained(pair_folder, "cpu")


def rungs(answers) -> list[int]:
    return [answer.trace.rung for answer in answers]


def shares(answers) -> np.ndarray:
    return np.stack([answer.probabilities for answer in answers])


def refusal(call, *arguments, **options) -> str:
    """The one line with which a call is refused."""
    with pytest.raises(UserError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- answers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_answers_come_in_the_order_of_the_texts(classifier, texts, batch_size):
    order = np.random.default_rng(0).permutation(len(texts))
    straight = classifier.answer(texts)
    shuffled = classifier.answer([texts[i] for i in order], batch_size=batch_size)
    assert [answer.label for answer in shuffled] == [straight[i].label for i in order]
    assert rungs(shuffled) == [straight[i].trace.rung for i in order]
    assert np.abs(shares(shuffled) - shares(straight)[order]).max() < 1e-5
    assert len(set(rungs(straight))) >= 3  # they do leave in different places
    assert len({answer.label for answer in straight}) >= 2


def test_a_text_is_answered_alone_as_among_others(classifier, texts):
    together = classifier.answer(texts)
    for text, answer in zip(texts, together, strict=True):
        (alone,) = classifier.answer([text])
        assert (alone.label, alone.trace.rung) == (answer.label, answer.trace.rung)
        assert np.abs(alone.probabilities - answer.probabilities).max() < 1e-5


def test_an_answer_is_its_largest_probability(classifier, texts):
    for answer in classifier.answer(texts):
        assert answer.probabilities.shape == (3,)
        assert answer.probabilities.sum() == pytest.approx(1)
        assert answer.label == ("river", "stone", "tower")[answer.probabilities.argmax()]


def test_no_texts_have_no_answers(classifier, pair_classifier):
    for model in (classifier, pair_classifier):
        for point in ("balanced", "fast", "full", model.rule("margin", 0.5), model.rule("margin", [])):
            assert model.answer([], point) == []
        assert model.every_rung(model.encode([])).readings.shape == (0, 4, 3)


def test_pairs_are_read_as_pairs(pair_classifier, texts):
    pairs = [(texts[i], texts[-1 - i]) for i in range(8)]
    answers = pair_classifier.answer(pairs, "full")
    swapped = pair_classifier.answer([(b, a) for a, b in pairs], "full")
    assert np.abs(shares(answers) - shares(swapped)).max() > 0.01
    lists = pair_classifier.answer([list(pair) for pair in pairs], "full")
    assert np.array_equal(shares(lists), shares(answers))
    (short,) = pair_classifier.answer([("bat kin", "lot")], "full")
    assert short.trace.tokens == (2 + 1 + 3,) * 4


def test_bfloat16_mostly_agrees(model_folder, classifier, texts):
    half = OpenedModel.from_pretrained(model_folder, "cpu", "bfloat16")
    assert half.backend.dtype == "bfloat16"
    for point in ("full", "balanced"):
        same = [
            a.label == b.label for a, b in zip(half.answer(texts, point), classifier.answer(texts, point), strict=True)
        ]
        assert np.mean(same) >= 0.85


# --- traces --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["balanced", "fast", "full"])
def test_a_trace_says_what_was_spent(classifier, texts, point):
    asked = classifier.rule_of(point).active
    lengths = classifier.encode(texts).lengths
    for answer, length in zip(classifier.answer(texts, point), lengths, strict=True):
        trace = answer.trace
        layer = classifier.rungs[trace.rung].layer
        assert trace.tokens == (length,) * layer
        assert trace.layers == layer
        heads_at = [rung.layer for rung, is_asked in zip(classifier.rungs[:-1], asked, strict=False) if is_asked]
        assert trace.flops == path_flops(
            classifier.spec, "fastbert", 3, trace.tokens, [at for at in heads_at if at <= layer], final=layer == 4
        )
        assert np.isfinite(trace.microseconds) and trace.microseconds > 0
        assert all(type(value) is int for value in (trace.rung, trace.flops, *trace.tokens))


def test_full_depth_costs_what_the_model_without_exits_costs(classifier, texts):
    flops = [answer.trace.flops for answer in classifier.answer(texts, "full")]
    assert flops == classifier.full_flops(classifier.encode(texts)).tolist()
    assert rungs(classifier.answer(texts, "full")) == [3] * len(texts)


def test_truncated_texts_say_so(classifier, texts):
    words = [len(text.split()) for text in texts]
    answers = classifier.answer(texts)
    assert [answer.trace.truncated for answer in answers] == [n + 2 > 24 for n in words]
    assert max(answer.trace.tokens[0] for answer in answers) == 24


def test_the_same_text_gets_the_same_answer_twice(classifier, texts):
    assert texts[4] == texts[10]
    answers = classifier.answer(texts)
    assert answers[4].trace.rung == answers[10].trace.rung
    assert np.abs(answers[4].probabilities - answers[10].probabilities).max() < 1e-5


# --- how fast ------------------------------------------------------------------------------------------------------


def test_speed_is_chosen_for_each_call(classifier, texts):
    depths = [np.mean(rungs(classifier.answer(texts, classifier.rule("entropy", tau)))) for tau in (0.0, 0.4, 1.0)]
    assert depths[0] > depths[1] > depths[2] == 0


def test_speed_is_chosen_for_each_text(classifier, texts):
    n = len(texts)
    order = np.random.default_rng(1).permutation(n)
    thresholds = np.where(order < n // 2, INF, -INF)
    answers = classifier.answer(texts, classifier.rule("entropy", thresholds), batch_size=5)
    assert rungs(answers) == np.where(order < n // 2, 0, 3).tolist()
    mixed = classifier.answer(texts, classifier.rule("margin", np.linspace(0, 1, n)))
    for i, threshold in enumerate(np.linspace(0, 1, n)):
        assert classifier.answer([texts[i]], classifier.rule("margin", threshold))[0].trace.rung == mixed[i].trace.rung


def test_a_point_is_given_by_name_or_as_itself_or_as_a_rule(classifier, texts):
    point = classifier.manifest.operating_point("fast")
    by_name = classifier.answer(texts, "fast")
    for same in (point, classifier.rule_of("fast")):
        assert rungs(classifier.answer(texts, same)) == rungs(by_name)
    assert 0 not in rungs(by_name)  # its first rung is not asked
    assert rungs(classifier.answer(texts)) == rungs(classifier.answer(texts, "balanced"))


def test_temperatures_change_exits_but_no_answers_of_a_rung(classifier, texts):
    every = classifier.every_rung(classifier.encode(texts)).readings
    plain = OperatingPoint("mine", "entropy", (0.5,) * 3, classifier.manifest.fingerprint)
    softer = dataclasses.replace(plain, temperatures=(3.0, 3.0, 3.0, 1.0))
    before, after = classifier.answer(texts, plain), classifier.answer(texts, softer)
    assert sum(rungs(after)) > sum(rungs(before))
    expected = softmax(every[np.arange(len(texts)), rungs(after)])
    assert np.abs(shares(after) - expected).max() < 1e-5


def test_a_fixed_depth_is_that_rungs_answer(classifier, texts):
    every = classifier.every_rung(classifier.encode(texts)).readings
    for rung in range(4):
        answers = classifier.answer(texts, ExitRule.fixed_depth(rung, 4))
        assert rungs(answers) == [rung] * len(texts)
        labels = [classifier.manifest.labels[i] for i in every[:, rung].argmax(axis=1)]
        assert [answer.label for answer in answers] == labels


# --- mistakes ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("empty", ["", "  ", "\n\t"])
def test_a_blank_text_is_answered_from_its_special_tokens_alone(classifier, pair_classifier, empty):
    alone, among = classifier.answer([empty])[0], classifier.answer(["bat", empty, "kin bat"])[1]
    assert alone.trace.read == 2 and (alone.label, alone.probabilities.tolist()) == (
        among.label,
        among.probabilities.tolist(),
    )
    assert len(pair_classifier.answer([("bat", "kin"), ("bat", empty), (empty, "bat")])) == 3


def test_one_string_is_not_a_list_of_texts(classifier):
    assert "give a list of texts" in refusal(classifier.answer, "bat kin")


@pytest.mark.parametrize("wrong", [("bat", "kin"), ["bat", "kin"], 3, None, b"bat", ("bat", "kin", "lot")])
def test_what_is_no_single_text_is_named_by_its_index(classifier, wrong):
    message = refusal(classifier.answer, ["bat", wrong])
    assert "number 1" in message and "single texts" in message


@pytest.mark.parametrize("wrong", ["bat", ("bat",), ("bat", 3), ("a", "b", "c"), None])
def test_what_is_no_pair_is_named_by_its_index(pair_classifier, wrong):
    message = refusal(pair_classifier.answer, [("bat", "kin"), wrong])
    assert "number 1" in message and "pairs of texts" in message


def test_an_unknown_operating_point_lists_those_that_exist(classifier, texts):
    message = refusal(classifier.answer, texts, "fastest")
    assert "'fastest'" in message and "balanced, fast" in message


def test_a_point_chosen_for_other_weights_is_refused(classifier, texts):
    stale = dataclasses.replace(classifier.manifest.operating_point("balanced"), fingerprint="0" * 64)
    assert "other weights" in refusal(classifier.answer, texts, stale)
    empty = OperatingPoint("mine", "entropy", (None, None, None), classifier.manifest.fingerprint)
    assert rungs(classifier.answer(texts, empty)) == [3] * len(texts)


@pytest.mark.parametrize("n", [0, 2, 4])
def test_there_is_one_threshold_for_each_rung_but_the_last(classifier, texts, n):
    point = OperatingPoint("mine", "entropy", (0.5,) * n, classifier.manifest.fingerprint)
    for wrong in (point, ExitRule.fixed_depth(0, n + 1)):
        assert f"{n} thresholds, the model needs 3" in refusal(classifier.answer, texts, wrong)


@pytest.mark.parametrize(("score", "most"), [("agreement", 2), ("agreement-in-a-row", 2), ("confident-in-a-row@1", 3)])
def test_a_count_out_of_reach_is_refused_with_the_largest(classifier, texts, score, most):
    point = OperatingPoint("mine", score, (most + 1.0,) * 3, classifier.manifest.fingerprint)
    for wrong in (point, classifier.rule(score, most + 1), classifier.rule(score, [1, most + 1])):
        message = refusal(classifier.answer, texts, wrong)
        assert f"largest count possible before the last is {most}; lower the threshold" in message
    assert set(rungs(classifier.answer(texts, classifier.rule(score, most)))) <= {2, 3}
    assert rungs(classifier.answer(texts, classifier.rule(score, INF))) == [3] * len(texts)


def test_thresholds_for_another_number_of_texts_are_refused(classifier, texts):
    rule = classifier.rule("entropy", [0.5, 0.5])
    assert "thresholds for 2 inputs, but there are 20" in refusal(classifier.answer, texts, rule)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_of_nothing_is_refused(classifier, texts, batch_size):
    assert f"batch size {batch_size}: must be at least 1" in refusal(classifier.answer, texts, batch_size=batch_size)


def test_a_batch_size_may_be_any_whole_number_and_nothing_else(classifier, texts):
    usual = rungs(classifier.answer(texts, "balanced"))
    for size in (np.int64(4), (4,), np.array([4])[0]):
        assert rungs(classifier.answer(texts, "balanced", batch_size=size)) == usual
    for wrong in (4.0, "4", (4, 4), (4.5,)):
        assert "must be a whole number" in refusal(classifier.answer, texts, batch_size=wrong)


def test_a_plain_checkpoint_is_refused_with_the_way_to_adapt_it(tiny_checkpoint):
    assert "`ziggurat adapt`" in refusal(OpenedModel.from_pretrained, tiny_checkpoint, "cpu")


@pytest.mark.parametrize("name", ["ziggurat.json", "config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_without_one_of_its_files_is_named(model_folder, copied, name):
    folder = copied(model_folder)
    (folder / name).unlink()
    message = refusal(OpenedModel.from_pretrained, folder, "cpu")
    assert str(folder) in message and name in message


def test_a_path_that_is_no_folder_is_named(tmp_path):
    assert "no such folder" in refusal(OpenedModel.from_pretrained, tmp_path / "no" / "such" / "model")
    (tmp_path / "file").write_text("")
    assert "is a file" in refusal(OpenedModel.from_pretrained, tmp_path / "file")


def test_threads_must_be_at_least_one(model_folder):
    assert "threads 0: must be at least 1" in refusal(OpenedModel.from_pretrained, model_folder, threads=0)


def test_a_stale_point_is_refused_when_it_is_used(model_folder, copied, texts):
    folder = copied(model_folder)
    manifest = read_manifest(folder)
    stale, *others = manifest.operating_points
    points = dataclasses.replace(stale, fingerprint="0" * 64), *others
    write_manifest(dataclasses.replace(manifest, operating_points=points), folder)
    classifier = OpenedModel.from_pretrained(folder, "cpu")
    assert "other weights" in refusal(classifier.answer, texts, "balanced")
    assert len(classifier.answer(texts, "fast")) == len(texts)


def test_nothing_is_printed_unless_progress_is_asked_for(classifier, texts, capfd):
    classifier.answer(texts)
    assert capfd.readouterr() == ("", "")
    classifier.answer(texts, progress=True)
    out, err = capfd.readouterr()
    assert out == "" and "texts" in err
