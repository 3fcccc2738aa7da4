"""What `explain` says is what `predict` did."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError
from ziggurat.explain import explanation, facts
from ziggurat.explain.explain import explain
from ziggurat.measure import ModelOptions
from ziggurat.policies import top_count
from ziggurat.recipe import PruningConfig
from ziggurat.serve.predict import predict

CPU = ModelOptions(device="cpu")
WORDS = ("bat", "ban", "bar", "kit", "kish", "lon", "loss", "mulm", "net", "nend", "pon", "posh", "rat", "rand")

words = st.lists(st.sampled_from([*WORDS, "unheard", ",", "bat's"]), min_size=1, max_size=30).map(" ".join)
thresholds = st.one_of(st.floats(0, 1), st.sampled_from([-np.inf, np.inf]))


@pytest.fixture(scope="module")
def classifier(pruned_folder):
    return OpenedModel.from_pretrained(pruned_folder, "cpu")


@pytest.fixture(scope="module")
def unpruned(model_folder):
    return OpenedModel.from_pretrained(model_folder, "cpu")


@settings(derandomize=True, deadline=None, max_examples=60)
@given(text=words, threshold=thresholds, score=st.sampled_from(["entropy", "margin", "max-probability"]))
def test_the_answer_and_its_way_are_those_of_predict(classifier, text, threshold, score):
    rule = classifier.rule(score, threshold)
    told = explanation(classifier, text, rule).to_dict()
    (answer,) = classifier.answer([text], rule)
    trace = answer.trace
    assert told["label"] == answer.label
    # Layer by layer a last layer is computed for all tokens, in one call for first tokens alone: the same to rounding.
    assert list(told["probabilities"].values()) == pytest.approx(answer.probabilities.tolist(), abs=1e-6)
    assert (told["layers"], told["flops"], told["truncated"]) == (trace.layers, trace.flops, trace.truncated)
    assert len(told["tokens"]) == trace.read
    live = [sum(t["left_at"] is None or t["left_at"] > layer for t in told["tokens"]) for layer in range(5)]
    assert tuple(live[1 : trace.layers + 1]) == trace.tokens
    (full,) = classifier.answer([text], "full")
    assert told["full"]["label"] == full.label
    assert told["full"]["probability"] == full.probabilities.max()
    assert told["agrees"] == (full.label == answer.label)
    assert told["full_flops"] == full.trace.flops


def test_of_a_cascade_the_tier_that_answered_is_explained(cascade_folder):
    """The first tier has no layers, in which tokens could leave."""
    classifier = OpenedModel.from_pretrained(cascade_folder, "cpu")
    small, whole = (explanation(classifier, "bat kit ban", classifier.rule("entropy", limit)) for limit in (9.9, 0.0))
    assert small.layers == 0 and small.pruning is None
    assert {token.left_at for token in small.tokens} == {None} and len(small.tokens) == 5
    assert not {"tokens", "pruning"} & {fact for fact, _ in facts(small)}
    assert whole.layers == 4 and len(whole.pruning.thresholds) == 4
    assert {"tokens", "pruning"} <= {fact for fact, _ in facts(whole)}


@settings(derandomize=True, deadline=None, max_examples=40)
@given(text=words, threshold=st.floats(0, 1))
def test_every_departure_follows_from_a_score_and_a_threshold(classifier, text, threshold):
    told = explanation(classifier, text, classifier.rule("entropy", threshold)).to_dict()
    for token in told["tokens"][1:]:
        steps = token["scores"]
        left = token["left_at"]
        last = 0 if left == 0 else told["layers"] if left is None else left
        assert [step["layer"] for step in steps] == list(range(1, last + 1))
        stays = [step["score"] > step["threshold"] for step in steps]
        assert stays == [True] * (len(steps) - 1) + [left is None] * bool(steps)
    assert told["tokens"][0]["left_at"] is None
    for rung in told["rungs"][:-1]:
        assert (rung["leaves"], rung["score"] <= threshold) == (False, False)
    last_rung = told["rungs"][-1]
    assert last_rung["leaves"]
    assert last_rung["threshold"] is None if last_rung["layer"] == 4 else last_rung["score"] <= threshold
    assert {key: last_rung[key] for key in ("label", "probability")} == {
        key: told[key] for key in ("label", "probability")
    }


def test_the_examples_drop_tokens_and_exit_at_several_layers(classifier, texts):
    told = [explanation(classifier, text, classifier.rule("entropy", 0.6)).to_dict() for text in texts]
    assert {token["left_at"] for one in told for token in one["tokens"]} >= {None, 0, 1, 2}
    assert len({one["layers"] for one in told}) > 1


def test_each_token_is_the_users_own_characters(classifier):
    text = "Bat  kin, bat's unheard"
    told = explanation(classifier, text, classifier.rule("entropy", 0.5)).to_dict()
    tokens = told["tokens"]
    assert [token["position"] for token in tokens] == list(range(len(tokens)))
    assert (tokens[0]["piece"], tokens[0]["start"], tokens[-1]["piece"]) == ("[CLS]", None, "[SEP]")
    assert [text[t["start"] : t["end"]] for t in tokens[1:4]] == ["Bat", "kin", ","]
    assert tokens[-2]["piece"] == "[UNK]" and text[tokens[-2]["start"] : tokens[-2]["end"]] == "unheard"


def test_words_that_are_not_read_left_at_layer_0_without_a_score(classifier):
    read = classifier.token_rule.vocabulary[[tokens[1, 0] for tokens in classifier.encode(WORDS).tokens]]
    known, unread = WORDS[read.argmax()], WORDS[read.argmin()]
    told = explanation(classifier, f"{known} {unread}", classifier.rule("entropy", 0.5)).to_dict()
    assert told["tokens"][2]["left_at"] == 0 and told["tokens"][2]["scores"] == []
    assert told["tokens"][1]["left_at"] != 0


def test_a_model_that_prunes_nothing_says_so(unpruned, texts):
    told = explanation(unpruned, texts[3], unpruned.rule("entropy", 0.5)).to_dict()
    assert told["pruning"] is None
    assert {token["left_at"] for token in told["tokens"]} == {None}
    assert not any(token["scores"] for token in told["tokens"])


def test_full_depth_asks_only_the_last_rung_and_prunes_nothing(classifier, texts):
    told = explanation(classifier, texts[4], classifier.rule_of("full")).to_dict()
    assert [(rung["layer"], rung["threshold"], rung["leaves"]) for rung in told["rungs"]] == [(4, None, True)]
    assert told["pruning"] is None and told["agrees"] and told["flops_ratio"] == 1


def test_a_rung_that_is_not_asked_is_not_told(unpruned, texts):
    told = explanation(unpruned, texts[4], unpruned.rule_of("fast")).to_dict()
    assert 1 not in [rung["layer"] for rung in told["rungs"]]
    assert (told["score"], told["larger_is_surer"]) == ("margin", True)


def test_temperatures_move_the_score_and_not_what_a_rung_says(unpruned, texts):
    plain = unpruned.rule("entropy", 0.0)
    hot = replace(plain, temperatures=np.array([3.0, 1.0, 1.0, 1.0]))
    cold_rung, hot_rung = (explanation(unpruned, texts[4], rule).to_dict()["rungs"][0] for rule in (plain, hot))
    assert hot_rung["score"] > cold_rung["score"]
    assert (cold_rung["temperature"], hot_rung["temperature"]) == (None, 3.0)
    assert hot_rung["probabilities"] == cold_rung["probabilities"]


def test_counts_as_scores_see_the_rungs_before(unpruned, texts):
    told = explanation(unpruned, texts[4], unpruned.rule("agreement", 2)).to_dict()
    labels = [rung["label"] for rung in told["rungs"]]
    agreed = np.cumsum([0, *(a == b for a, b in zip(labels[1:], labels, strict=False))])
    assert [rung["score"] for rung in told["rungs"]] == agreed.tolist()


def test_counts_of_tokens_are_told_as_they_are(make_folder, texts):
    config = PruningConfig(kind="count", per_layer=(None, 4.0, 2.0, None))
    model = OpenedModel.from_pretrained(make_folder(pruning=config), "cpu")
    told = explanation(model, texts[4], model.rule("entropy", 0.0)).to_dict()
    assert model.token_rule.keep is top_count
    assert told["pruning"]["thresholds"] == {"1": None, "2": 4.0, "3": 2.0, "4": None}
    places = [token["left_at"] for token in told["tokens"]]
    assert (places.count(None), places.count(3)) == (2, 2)


def test_a_text_that_is_cut_says_so_and_tells_only_what_was_read(classifier):
    told = explanation(classifier, "bat " * 50, classifier.rule("entropy", 0.5)).to_dict()
    assert told["truncated"]
    assert len(told["tokens"]) == 24
    assert told["tokens"][-2]["end"] == 87


def test_the_job_is_predict_with_reasons_as_json(pruned_folder, texts):
    told = explain(str(pruned_folder), texts[3], "balanced", options=CPU).to_dict()
    (answer,) = predict(str(pruned_folder), [texts[3]], options=CPU).to_dict()["answers"]
    same = {"text", "label", "probability", "probabilities", "layers", "flops", "truncated"}
    assert {key: told[key] for key in same} == {key: answer[key] for key in same}
    assert json.loads(json.dumps(told, allow_nan=False)) == told


def test_infinite_thresholds_are_json_too(pruned_folder):
    told = explain(str(pruned_folder), "bat kin", threshold=float("inf"), options=CPU).to_dict()
    assert told["rungs"][0]["threshold"] == "inf" and told["layers"] == 1
    json.dumps(told, allow_nan=False)


def test_pairs_tell_which_text_a_token_is_of(pair_folder):
    told = explain(str(pair_folder), ("bat kin", "losh"), options=CPU).to_dict()
    assert [token["side"] for token in told["tokens"]] == [None, 0, 0, None, 1, None]
    assert told["text"] == ["bat kin", "losh"]


@pytest.mark.parametrize(
    ("folder", "text", "named"),
    [
        ("single", ("bat", "kin"), "reads single texts"),
        ("pair", "bat", "give a second text"),
    ],
)
def test_the_wrong_kind_of_text_is_refused(folder, text, named, model_folder, pair_folder):
    with pytest.raises(UserError, match=named):
        explain(str({"single": model_folder, "pair": pair_folder}[folder]), text, options=CPU)


def test_an_unknown_operating_point_is_refused(model_folder):
    with pytest.raises(UserError, match="balanced"):
        explain(str(model_folder), "bat", "quick", options=CPU)


def test_text_that_is_none_is_told_as_it_was_read(unpruned):
    told = explanation(unpruned, "bat\x00 \ud800 kin", unpruned.rule("entropy", 0.5)).to_dict()
    assert told["text"] == "bat\x00 \ufffd kin"
    assert [told["text"][t["start"] : t["end"]] for t in told["tokens"][1:-1]] == ["bat", "kin"]
