"""Competitors are handed what an architecture reads, so that they answer as it does."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.kit.families import random_texts, save_adaptive
from ziggurat.bench import INPUTS, KINDS, Entry, PeerSetting, of_peer, open_peers
from ziggurat.data import TextTokenizer
from ziggurat.data.tokenizer import pack_rows
from ziggurat.encoder import read_spec
from ziggurat.encoder.folder import read_json
from ziggurat.engine import run_batches as run
from ziggurat.engine.backends.torch import load_backend
from ziggurat.policies import ExitRule
from ziggurat.problems import Problem

pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("name", ["roberta", "distilbert", "electra", "modernbert"])
def test_peers_in_float32_answer_as_the_torch_engine(tmp_path, name):
    folder = save_adaptive(name, tmp_path)
    encoded = TextTokenizer(folder, 40).encode(random_texts(0, (1, 9, 4, 30)), random_texts(1, (3, 2, 8, 1)))
    spec = read_spec(read_json(folder / "config.json", ""))
    kinds = [kind for kind in KINDS if kind.dtype == "float32"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        peers, left_out = open_peers(kinds, PeerSetting(folder, spec, Problem.head, 1, tmp_path))
    assert not [one for one in left_out if "not installed" not in one.reason]
    expected = run(
        load_backend(folder, "cpu", "float32", 1), [pack_rows(encoded, np.arange(4))], ExitRule.full_depth(3), 4
    ).logits
    for peer in peers:
        answer = Entry(of_peer(peer, "x"), "as it comes", 3).prepared(encoded)()
        assert np.allclose(answer, expected, atol=1e-4), peer.name
        if peer.name != "transformers SDPA":
            assert peer.inputs == (INPUTS if name in ("roberta", "electra") else ("input_ids", "attention_mask"))
