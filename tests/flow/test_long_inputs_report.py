"""Inputs as long as the encoder has positions: by length, accuracy and time are of what was really read."""

import json

import numpy as np
import pytest

from ziggurat.analyses import FULL_DEPTH, Exits, Request, lengths
from ziggurat.measure import ModelOptions
from ziggurat.native import why_missing

WORDS = ("bat", "kin", "losh", "mur", "ness", "polm")
LABELS = ("river", "stone", "tower")


@pytest.fixture(scope="module")
def long_folder(make_bert, make_checkpoint, tmp_path_factory):
    """A model folder that reads 512 tokens and prunes some of them."""
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model
    from ziggurat.recipe import PruningConfig

    base = tmp_path_factory.mktemp("long")
    checkpoint = make_checkpoint(make_bert(max_position_embeddings=512), base / "checkpoint")
    torch.manual_seed(1)
    pruning = PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0))
    model = load_hf(checkpoint, 3, "fastbert", (1, 2, 3), pruning=pruning).eval()
    manifest = Manifest(LABELS, False, 512, "fastbert", (1, 2, 3), "", pruning=pruning)
    save_model(model, manifest, np.array([1], dtype=np.uint64), checkpoint, base / "model")
    return base / "model"


@pytest.fixture(scope="module")
def long_rows(tmp_path_factory):
    """Texts from a few words to more than the model reads."""
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rng = np.random.default_rng(0)
    sizes = [5, 30, 60, 100, 126, 127, 200, 300, 400, 509, 510, 511, 700]
    rows = [{"text": " ".join(rng.choice(WORDS, n)), "label": LABELS[n % 3]} for n in sizes]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.mark.parametrize("engine", ["torch", "native"])
def test_inputs_of_512_tokens_have_their_own_bucket(engine, long_folder, long_rows, tmp_path):
    if engine == "native" and why_missing() is not None:
        pytest.skip("the compiled engine is not installed")
    options = ModelOptions("cpu", batch_size=4, backend=engine)
    request = Request([str(long_folder)], str(long_rows), tmp_path, options=options)
    result = lengths(request, (128, 256, 511), Exits(threshold=0.9), timed_texts=2, repeats=1).to_dict()
    rows = {row["bucket"]: row for row in result["rows"] if row["setting"] == FULL_DEPTH}
    assert {bucket: (row["n"], row["span"]) for bucket, row in rows.items()} == {
        "1-128": (5, "7-128"),
        "129-256": (2, "129-202"),
        "257-511": (3, "302-511"),
        "> 511": (3, "512-512"),
    }
    assert all(row["milliseconds_per_text"] > 0 and 0 <= row["accuracy"] <= 1 for row in result["rows"])
    assert any("2 of the 13 texts are longer than the 512 tokens" in note for note in result["notes"])
    assert "ms per text" in (tmp_path / "lengths.md").read_text()


def test_both_engines_answer_long_inputs_alike(long_folder, long_rows):
    if why_missing() is not None:
        pytest.skip("the compiled engine is not installed")
    from ziggurat.data import load

    texts = load(str(long_rows)).texts
    answers = [
        ModelOptions("cpu", backend=engine).open(str(long_folder)).answer(texts, "full")
        for engine in ("torch", "native")
    ]
    for mine, theirs in zip(*answers, strict=True):
        assert mine.trace.read == theirs.trace.read
        np.testing.assert_allclose(mine.probabilities, theirs.probabilities, atol=1e-3)
