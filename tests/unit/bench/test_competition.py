"""The race: orders, batch sizes, latencies, what is left out and why."""

import warnings

import numpy as np
import pytest

from ziggurat.bench import INPUTS, KINDS, Entry, Peer, PeerKind, PeerSetting, of_peer, open_peers, padded
from ziggurat.bench.competition import Contestant, Latencies, best_entries, in_call_order, race_single, single_entries
from ziggurat.bench.peers import opening as peers_open
from ziggurat.bench.peers.peer import Unavailable
from ziggurat.bench.tables import comparison_tables
from ziggurat.data.tokenizer import Encoded
from ziggurat.encoder import read_spec
from ziggurat.encoder.folder import read_json
from ziggurat.problems import Problem


class Counting(Peer):
    """Answers with what it was given: the sum of a text's ids, and how wide its batch was."""

    name, dtype = "Counting", "float32"

    def logits(self, batch):
        ids = (batch["input_ids"] * batch["attention_mask"]).sum(axis=1)
        return np.stack([ids, np.full(len(ids), batch["input_ids"].shape[1])], axis=1).astype(np.float32)


@pytest.fixture
def encoded(ragged_tokens):
    return Encoded(ragged_tokens, np.zeros(len(ragged_tokens), dtype=bool))


@pytest.mark.parametrize("order", ["as it comes", "sorted"])
def test_answers_come_back_in_the_order_of_the_texts(encoded, order):
    sums = [tokens[:, 0].sum() for tokens in encoded.tokens]
    for batch in (1, 3, 32):
        answer = Entry(of_peer(Counting(), "counting"), order, batch).prepared(encoded)()
        assert answer[:, 0].tolist() == sums


def test_sorting_saves_padding_and_batch_one_has_none(encoded):
    widths = {
        (order, batch): Entry(of_peer(Counting(), "counting"), order, batch).prepared(encoded)()[:, 1].sum()
        for order in ("as it comes", "sorted")
        for batch in (1, 4)
    }
    assert widths["sorted", 1] == widths["as it comes", 1] == encoded.lengths.sum()
    assert encoded.lengths.sum() < widths["sorted", 4] < widths["as it comes", 4]


def test_padding_is_masked_zeros(encoded):
    feed = padded(encoded.tokens[:3])
    assert tuple(feed) == INPUTS
    assert feed["attention_mask"].sum(axis=1).tolist() == encoded.lengths[:3].tolist()
    assert not feed["input_ids"][feed["attention_mask"] == 0].any()


def test_logits_of_batches_are_put_back():
    batches = [np.array([2, 0]), np.array([1])]
    assert in_call_order([np.array([[2.0], [0.0]]), np.array([[1.0]])], batches).tolist() == [[0.0], [1.0], [2.0]]


def pretender(clock, seconds, streams=1):
    """A contestant that moves the clock by what its first batch's size says."""

    def prepare(encoded, batches):
        def answer():
            clock[0] += seconds[len(batches[0])]

        return answer

    return Contestant("pretender", "none", "float32", prepare, streams=streams)


def test_the_fastest_batch_size_and_way_to_run_are_found(encoded):
    clock = [0.0]
    slow, quick = pretender(clock, {1: 2, 4: 2, 16: 2}), pretender(clock, {1: 2, 4: 1, 16: 2}, streams=2)
    best = best_entries([slow, quick], encoded, (16, 4, 1, 64), repeats=2, clock=lambda: clock[0])
    assert [(entry.order, entry.batch, entry.contestant.streams) for entry in best] == [
        ("as it comes", 4, 2),
        ("sorted", 4, 2),
    ]


def test_a_sample_below_all_batch_sizes_is_one_batch(encoded):
    entries = best_entries([of_peer(Counting(), "x")], encoded, (64, 128), repeats=1)
    assert [entry.batch for entry in entries] == [len(encoded.tokens)] * 2


def test_single_texts_are_timed_in_the_order_of_the_texts(encoded):
    entries = single_entries([of_peer(Counting(), "counting"), pretender([0], {}, streams=2)])
    assert [entry.order for entry in entries] == ["as it comes", "sorted"]
    seen = []
    few = [4, 0, 7]

    def encode(rows):
        seen.extend(rows)
        return Encoded([encoded.tokens[row] for row in rows], np.zeros(len(rows), dtype=bool))

    latencies = race_single(entries, encode(few), 2, encode=lambda rows: encode([few[row] for row in rows]))
    assert all(one.seconds.shape == (2, 3) and (one.seconds > 0).all() for one in latencies.values())
    by_length = sorted(few, key=lambda row: -len(encoded.tokens[row]))
    assert seen == few + 3 * (few + by_length)  # a round to warm up, then two


def test_latencies_are_medians_of_the_rounds():
    latencies = Latencies(np.array([[1.0, 5.0, 3.0], [2.0, 9.0, 3.0], [9.0, 9.0, 4.0]]))
    assert latencies.per_text.tolist() == [2.0, 9.0, 3.0]
    assert latencies.medians.runs == (3.0, 3.0, 9.0)


def test_a_peer_that_is_not_installed_is_named_with_its_pip_line(tmp_path, tiny_spec, monkeypatch):
    monkeypatch.setattr(peers_open.importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else name)
    [kind] = [kind for kind in KINDS if (kind.name, kind.dtype) == ("ONNX Runtime", "int8")]
    peers, [left] = open_peers([kind], PeerSetting(tmp_path, tiny_spec, Problem.head, 1, tmp_path))
    assert not peers
    assert (left.name, left.dtype) == ("ONNX Runtime", "int8")
    assert left.reason == "onnxruntime not installed: pip install '.[bench]' in Ziggurat's folder"


def test_a_peer_that_cannot_run_is_named_and_costs_no_other(tmp_path, tiny_spec):
    def cannot(setting):
        raise Unavailable("this CPU is too old")

    def broken(setting):
        raise KeyError("x\ny")

    kinds = [PeerKind(str(make), "int8", (), make) for make in (cannot, broken, lambda setting: [Counting()])]
    peers, left = open_peers(kinds, PeerSetting(tmp_path, tiny_spec, Problem.head, 1, tmp_path))
    assert [peer.name for peer in peers] == ["Counting"]
    old, wrong = (one.reason for one in left)
    assert old == "this CPU is too old"
    assert wrong.startswith("could not be loaded (KeyError: 'x")


@pytest.fixture(scope="module")
def real_peers(tiny_checkpoint, random_tokens, tmp_path_factory):
    """All that are installed, each way to run it; warnings of theirs that are not expected are errors."""
    spec = read_spec(read_json(tiny_checkpoint / "config.json", ""))
    scratch = tmp_path_factory.mktemp("scratch")
    setting = PeerSetting(tiny_checkpoint, spec, Problem.head, 2, scratch, random_tokens(range(2, 7), seed=4))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peers, left_out = open_peers(KINDS, setting)
    return peers, left_out


def test_all_installed_peers_can_be_loaded(real_peers):
    _, left_out = real_peers
    excused = [one for one in left_out if "not installed" in one.reason or "this CPU" in one.reason]
    assert left_out == excused


def test_float32_peers_answer_as_we_do(real_peers, encoded, make_model):
    from ziggurat.data.tokenizer import pack_rows
    from ziggurat.engine import TorchBackend
    from ziggurat.engine import run_batches as run
    from ziggurat.policies import ExitRule

    backend, rows = TorchBackend(make_model(), "cpu"), np.arange(len(encoded.tokens))
    ours = run(backend, [pack_rows(encoded, rows)], ExitRule.full_depth(len(backend.rung_layers)), len(rows)).readings
    compared = 0
    for peer in real_peers[0]:
        for order in ("as it comes", "sorted"):
            answer = Entry(of_peer(peer, "x"), order, 3).prepared(encoded)()
            assert answer.dtype == np.float32
            if peer.dtype == "float32":
                assert np.allclose(answer, ours, atol=1e-4), (peer.name, peer.streams)
                compared += 1
    assert compared >= 2


@pytest.mark.parametrize("engine", ["ONNX Runtime", "OpenVINO"])
def test_int8_peers_are_near_and_not_float32(real_peers, encoded, engine):
    pytest.importorskip({"ONNX Runtime": "onnxruntime", "OpenVINO": "nncf"}[engine])
    peers = {peer.dtype: peer for peer in real_peers[0] if peer.name == engine and peer.streams == 1}
    logits = {dtype: Entry(of_peer(peer, "x"), "sorted", 4).prepared(encoded)() for dtype, peer in peers.items()}
    away = np.abs(logits["int8"] - logits["float32"])
    assert away.max() > 1e-3 and away.mean() < 0.5 * logits["float32"].std()


def row(what, peer, speed, **more):
    same = {
        "dtype": "float32",
        "order": "sorted",
        "batch": 8,
        "streams": 1,
        "timed": "model",
        "peer": peer,
        "engine": "torch",
    }
    gains = {
        "time_gain": 1.0,
        "flops_gain": 1.0,
        "accuracy": 0.9,
        "accuracy_low": 0.8,
        "accuracy_high": 0.95,
        "engine": "torch",
    }
    return {"what": what, "texts_per_second_p50": speed, **same, **gains, **more}


def test_the_table_sets_our_fastest_against_every_peer():
    rows = [
        row("ziggurat full depth", False, 100.0, over={"OpenVINO int8, sorted": [0.5, 0.4, 0.6]}),
        row("ziggurat full depth", False, 200.0, dtype="bfloat16", over={"OpenVINO int8, sorted": [1.25, 1.1, 1.4]}),
        row("OpenVINO", True, 160.0, dtype="int8"),
    ]
    text = comparison_tables(rows)
    assert text.splitlines()[0] == "best batch size: the model alone"
    assert "full depth (torch bfloat16, sorted)" in text
    assert text.splitlines()[-1].split() == ["OpenVINO", "int8,", "sorted", "1.25", "[1.10,", "1.40]"]
    assert "0.50" not in text
