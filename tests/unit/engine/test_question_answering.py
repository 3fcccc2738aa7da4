"""Questions in packed windows against the specification, in both engines; what the front door says and refuses."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit.questions import make_contexts, make_questions, save_span_folder
from ziggurat import native
from ziggurat.encoder import fingerprint, read_manifest, write_manifest
from ziggurat.engine import Engine, OpenedModel, answer_ladder
from ziggurat.engine.replay import replay
from ziggurat.errors import UserError
from ziggurat.policies import SPAN_ENTROPY, ExitRule, scaled
from ziggurat.problems import PLACE, SCORE
from ziggurat.problems.spans import NULL_SCORE
from ziggurat.recipe import PruningConfig
from ziggurat.types import OperatingPoint, ProblemType

ENGINES = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(bool(native.why_missing()), reason="no compiled engine")),
]
N_RUNGS = 4
PRUNING = PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9)


@pytest.fixture(scope="module")
def folders(tmp_path_factory, make_checkpoint):
    """Folders of the same model, with and without pruning."""
    make = tmp_path_factory.mktemp
    return {
        "plain": save_span_folder(make("plain"), make_checkpoint),
        "pruned": save_span_folder(make("pruned"), make_checkpoint, PRUNING),
    }


@pytest.fixture(scope="module", params=ENGINES)
def answerers(request, folders):
    """Both models, open in one engine."""
    return {
        name: OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=request.param)
        for name, folder in folders.items()
    }


@pytest.fixture(scope="module")
def asked():
    return list(zip(make_questions(), make_contexts(), strict=True))


def simply(answerer, windows, rule):
    """The specification's answers: readings and rungs of all questions."""
    backends = [tier.backend for tier in answerer.tiers]
    edges = windows.edges.tolist()
    found = [
        answer_ladder(backends, [windows.tokens[first:last]] * len(backends), rule, row)
        for row, (first, last) in enumerate(pairwise(edges))
    ]
    return np.array([reading for reading, _ in found]), np.array([rung for _, rung in found])


def places(readings):
    """Window, first and last token of each answer."""
    return readings[..., PLACE].astype(int).tolist()


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=12)
@given(
    threshold=st.floats(0.3, 0.99),
    size=st.integers(1, 12),
    seed=st.integers(0, 99),
    name=st.sampled_from(["plain", "pruned"]),
)
def test_packed_windows_answer_as_one_by_one(answerers, threshold, size, seed, name):
    answerer = answerers[name]
    windows = answerer.encode(list(zip(make_questions(seed), make_contexts(seed), strict=True)))
    rule = answerer.rule(SPAN_ENTROPY, threshold)
    outcomes = answerer.run(windows, rule, size)
    readings, rungs = simply(answerer, windows, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert places(outcomes.readings) == places(readings)
    assert np.abs(outcomes.readings - readings).max() < 1e-4


@settings(derandomize=True, deadline=None, max_examples=8)
@given(threshold=st.floats(0.3, 0.99), size=st.integers(1, 40), seed=st.integers(0, 99), per_question=st.booleans())
def test_a_cascade_of_questions_equals_the_specification(answerers, threshold, size, seed, per_question):
    """Every question's windows go on to the second model together; the first prunes as it was trained to."""
    first, last = answerers["pruned"].tiers[0], answerers["plain"].tiers[0]
    cascade = OpenedModel([replace(first, tokenizer=last.tokenizer), last])
    windows = cascade.encode(list(zip(make_questions(seed), make_contexts(seed), strict=True)))
    limits = np.linspace(threshold / 2, threshold, len(windows)) if per_question else threshold
    rule = cascade.rule(SPAN_ENTROPY, limits)
    outcomes = cascade.run(windows, rule, size)
    readings, rungs = simply(cascade, windows, rule)
    assert outcomes.rungs.tolist() == rungs.tolist()
    assert places(outcomes.readings) == places(readings)
    assert np.abs(outcomes.readings - readings).max() < 1e-4
    every = cascade.every_rung(windows, size)
    assert every.readings.shape == (len(windows), 2 * N_RUNGS, 7)
    assert replay(every.readings, rule).tolist() == rungs.tolist()
    came = (rungs >= N_RUNGS)[windows.owners]
    assert np.array_equal(outcomes.token_counts[:, first.columns] > 0, came)
    spent = cascade.flops(windows, outcomes.token_counts, rule)[np.arange(len(windows)), rungs]
    assert (spent[rungs >= N_RUNGS] > cascade.full_flops(windows)[rungs >= N_RUNGS] / N_RUNGS).all() and (
        spent > 0
    ).all()
    answers = cascade.answers(windows, outcomes, rule)
    assert [answer.trace.rung for answer in answers] == rungs.tolist()


def test_questions_of_several_requests_share_batches(answerers):
    answerer = answerers["pruned"]
    windows, rule = (
        answerer.encode(list(zip(make_questions(3), make_contexts(3), strict=True))),
        answerer.rule(SPAN_ENTROPY, 0.8),
    )
    expected = answerer.run(windows, rule)
    engine = Engine(answerer.ladder, [50])
    submitted = [np.array([4, 0]), np.array([2]), np.array([1, 5, 3])]
    rows = dict(enumerate(np.concatenate(submitted).tolist()))
    for some in submitted:
        engine.submit(windows.take(some), rule)
    results = engine.step()
    assert [result.ticket for result in results] == sorted(rows)
    for result in results:
        outcomes, row = result.get(), rows[result.ticket]
        assert np.allclose(outcomes.readings[0], expected.readings[row], atol=1e-4)
        assert outcomes.rungs[0] == expected.rungs[row]
        assert outcomes.token_counts.tolist() == expected.token_counts[windows.owners == row].tolist()


def test_questions_exit_and_prune_at_different_depths(answerers, asked):
    answerer = answerers["pruned"]
    windows = answerer.encode(asked)
    outcomes = answerer.run(windows, answerer.rule(SPAN_ENTROPY, 0.8))
    assert len(set(outcomes.rungs)) > 1
    depth = np.array(answerer.backend.rung_layers)[outcomes.rungs][windows.owners]
    for window, layers in enumerate(depth):
        assert (outcomes.token_counts[window, : layers + 1] > 0).all() and not outcomes.token_counts[
            window, layers + 1 :
        ].any()
    assert (np.diff(outcomes.token_counts, axis=1) <= 0).all() and (outcomes.token_counts[:, 1] < windows.lengths).any()


@pytest.mark.parametrize("strength", [0.0, 1.0, 1.2])
@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_replayed_exits_equal_the_run_at_every_strength(folders, asked, strength, threshold):
    answerer = OpenedModel.from_pretrained(folders["pruned"], "cpu", threads=1, backend="torch")
    tokens, windows = scaled(answerer.token_rule, strength), answerer.encode(asked)
    rule = replace(ExitRule.uniform(SPAN_ENTROPY, threshold, N_RUNGS), tokens=tokens)
    outcomes, every = answerer.run(windows, rule), answerer.every_rung(windows, 5, tokens=tokens)
    assert replay(every.readings, rule).tolist() == outcomes.rungs.tolist()
    mine = every.readings[np.arange(len(windows)), outcomes.rungs]
    assert places(mine) == places(outcomes.readings)
    assert np.allclose(mine, outcomes.readings, atol=1e-4)


@pytest.mark.skipif(bool(native.why_missing()), reason="no compiled engine")
def test_both_engines_agree(folders, asked):
    for folder in folders.values():
        opened = (OpenedModel.from_pretrained(folder, "cpu", threads=1, backend=e) for e in ("torch", "native"))
        one, other = opened
        windows, rule = one.encode(asked), one.rule(SPAN_ENTROPY, 0.7)
        mine, theirs = one.run(windows, rule), other.run(windows, rule)
        assert mine.rungs.tolist() == theirs.rungs.tolist()
        assert places(mine.readings) == places(theirs.readings)
        assert np.abs(mine.readings - theirs.readings).max() < 1e-3
        assert np.array_equal(mine.token_counts, theirs.token_counts)


def test_full_depth_is_what_transformers_says(folders, asked):
    from transformers import BertForQuestionAnswering

    answerer = OpenedModel.from_pretrained(folders["pruned"], "cpu", threads=1)
    windows = answerer.encode(asked)
    outcomes = answerer.run(windows, ExitRule.full_depth(N_RUNGS))
    model = BertForQuestionAnswering.from_pretrained(folders["pruned"]).eval()
    best = {}
    for window, tokens in enumerate(windows.tokens):
        ids = torch.from_numpy(tokens)[None]
        with torch.no_grad():
            out = model(input_ids=ids[..., 0], token_type_ids=ids[..., 1])
        first, n = windows.first[window], len(windows.places[window])
        for start in range(first, first + n):
            for end in range(start, min(first + n, start + answerer.problem.windows.answer + 1)):
                total = float(out.start_logits[0, start] + out.end_logits[0, end])
                row = windows.owners[window]
                best[row] = max(best.get(row, (-np.inf,)), (total, window, start, end))
    for row in range(len(windows)):
        score, window, *tokens = best[row]
        assert outcomes.readings[row, SCORE] == pytest.approx(score, abs=1e-3)
        assert places(outcomes.readings[row]) == [window - windows.edges[row], *tokens]


def test_answers_stand_in_their_context_where_they_say(answerers, asked):
    for answerer in answerers.values():
        answers = answerer.answer(asked, at=answerer.rule(SPAN_ENTROPY, 0.8), batch_size=4)
        for answer, (_, context) in zip(answers, asked, strict=True):
            assert answer.text and context[answer.start : answer.end] == answer.text
            assert 0 <= answer.doubt <= 1 and answer.trace.flops > 0
            assert answer.trace.layers == answerer.backend.rung_layers[answer.trace.rung]


def test_what_is_spent_is_the_sum_of_a_questions_windows(answerers, asked):
    answerer = answerers["plain"]
    windows, rule = answerer.encode(asked), ExitRule.full_depth(N_RUNGS)
    outcomes = answerer.run(windows, rule)
    spent, whole = answerer.flops(windows, outcomes.token_counts, rule), answerer.full_flops(windows)
    assert spent[:, -1].tolist() == whole.tolist()
    alone = [answerer.full_flops(windows.take(np.array([row])))[0] for row in range(len(windows))]
    assert alone == whole.tolist()
    asked_all = ExitRule.uniform(SPAN_ENTROPY, 0.0, N_RUNGS)  # three more heads, each 2 x 2 d for every token
    extra = answerer.flops(windows, outcomes.token_counts, asked_all)[:, -1] - whole
    assert extra.tolist() == (3 * 4 * answerer.spec.hidden * windows.read).tolist()


def test_above_its_rungs_threshold_a_question_has_no_answer(answerers, asked):
    answerer = answerers["plain"]
    windows = answerer.encode(asked)
    readings = answerer.every_rung(windows).readings
    leads = readings[..., NULL_SCORE] - readings[..., SCORE]
    cuts = tuple(np.median(leads, axis=0).tolist())
    some = answerer.with_manifest(replace(answerer.manifest, no_answer=cuts))
    texts = some.problem.predictions(readings, windows)
    for rung in range(N_RUNGS):
        missing = [not one.text for one in texts[:, rung]]
        assert missing == (leads[:, rung] > cuts[rung]).tolist() and any(missing) and not all(missing)
    answers = some.answer(asked, at="full")
    assert [(not one.text, one.start, one.end) for one in answers if not one.text] == [(True, 0, 0)] * 5


def test_the_best_span_may_be_in_any_window(answerers, asked):
    answerer = answerers["plain"]
    windows = answerer.encode(asked)
    outcomes = answerer.run(windows, ExitRule.full_depth(N_RUNGS))
    found = outcomes.readings[:, PLACE][:, 0]
    assert (found < np.diff(windows.edges)).all() and (found > 0).any()


def test_a_context_without_words_has_no_answer(answerers):
    [answer] = answerers["plain"].answer([("bat", "\u200b")], "full")
    assert (answer.text, answer.start, answer.end) == ("", 0, 0)


def test_an_empty_question_and_lists_of_one_string_are_refused(answerers):
    answerer = answerers["plain"]
    with pytest.raises(UserError, match="question number 0 is empty"):
        answerer.answer([(" ", "bat")], "full")
    with pytest.raises(UserError, match="one string was given"):
        answerer.answer("bat", "full")
    with pytest.raises(UserError, match="batch size 0: must be at least 1"):
        answerer.answer([("bat", "bat")], "full", batch_size=0)


def test_no_questions_have_no_answers_and_generators_are_lists(answerers):
    answerer = answerers["plain"]
    assert answerer.answer([], "full") == []
    [one] = answerer.answer((pair for pair in [("bat", "kin losh")]), "full")
    assert one == replace(answerer.answer([("bat", "kin losh")], "full")[0], trace=one.trace)


def test_questions_contexts_and_thresholds_must_be_as_many(answerers, asked):
    answerer = answerers["plain"]
    with pytest.raises(UserError, match="number 1 is not what the model reads: pairs of texts"):
        answerer.answer([("bat", "kin"), "bat"], "full")
    with pytest.raises(UserError, match=f"thresholds for 2 inputs, but there are {len(asked)}"):
        answerer.answer(asked, answerer.rule(SPAN_ENTROPY, [0.5, 0.5]))


def test_operating_points_run_and_stale_ones_are_refused(folders, asked, copied):
    folder = copied(folders["pruned"])
    manifest = read_manifest(folder)
    point = OperatingPoint("fast", SPAN_ENTROPY, (0.7, None, 0.8), manifest.fingerprint, pruning=1.0)
    write_manifest(replace(manifest, operating_points=(point,)), folder)
    answerer = OpenedModel.from_pretrained(folder, "cpu", threads=1)
    rule = answerer.rule_of("fast")
    windows = answerer.encode(asked)
    named = answerer.answer(asked, at="fast")
    assert [one.trace.rung for one in named] == answerer.run(windows, rule).rungs.tolist()
    with pytest.raises(UserError, match="chosen for other weights"):
        answerer.rule_of(replace(point, fingerprint="other"))


def test_what_changes_answers_changes_the_fingerprint(folders):
    folder = folders["plain"]
    manifest = read_manifest(folder)
    others = [replace(manifest, no_answer=(0.0,) * 4), replace(manifest, spans=replace(manifest.spans, stride=4))]
    assert len({fingerprint(folder, one) for one in (manifest, *others)}) == 3


def test_classifiers_and_span_models_refuse_each_others_folders(folders, model_folder):
    kinds = [OpenedModel.from_pretrained(folder).problem.kind for folder in (folders["plain"], model_folder)]
    assert kinds == [ProblemType.QUESTION_ANSWERING, ProblemType.SINGLE_LABEL]
