"""Every architecture against transformers: texts in, logits out, weights there and back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kit import families
from tests.kit.families import FAMILIES, LABELS, random_texts, save_adaptive, save_family
from ziggurat.data import TextTokenizer, pack
from ziggurat.data.tokenizer import pack_rows
from ziggurat.encoder import (
    from_hf,
    full_flops,
    load_hf,
    load_model,
    path_flops,
    read_config,
    read_spec,
    rung_flops,
    to_hf,
)
from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.flops import embedding_flops
from ziggurat.errors import UserError

LENGTHS = (0, 1, 2, 60, 5, 3, 17, 8)  # words: nothing at all, more than a model reads, and the like


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """A folder of each family as transformers saves it. Shared."""
    root = tmp_path_factory.mktemp("families")
    return {name: save_family(name, root / name) for name in FAMILIES}


@pytest.fixture(scope="module")
def both(checkpoints) -> dict[str, tuple]:
    """Each family's model in transformers and ours of its folder. Shared."""
    return {
        name: (families.family(name), load_hf(folder, len(LABELS), "linear", ()).eval())
        for name, folder in checkpoints.items()
    }


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """A model folder of each, with a head after each layer but the last. Shared."""
    root = tmp_path_factory.mktemp("models")
    return {name: save_adaptive(name, root / name) for name in FAMILIES}


def theirs(folder: Path, texts, pairs=None) -> tuple[list[list[int]], torch.Tensor]:
    """Token ids and logits of plain transformers, one padded batch, tokenised by transformers."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    longest = read_spec(read_config(folder)).positions
    arguments = (texts,) if pairs is None else (texts, pairs)
    inputs = AutoTokenizer.from_pretrained(folder)(
        *arguments, truncation=True, max_length=longest, padding=True, return_tensors="pt"
    )
    ids = [row[mask].tolist() for row, mask in zip(inputs["input_ids"], inputs["attention_mask"].bool(), strict=True)]
    with torch.no_grad():
        return ids, model(**inputs).logits


@torch.no_grad()
def ours(folder: Path, texts, pairs=None) -> tuple[list[list[int]], torch.Tensor]:
    spec = read_spec(read_config(folder))
    model = load_hf(folder, len(LABELS), "linear", ()).eval()
    encoded = TextTokenizer(folder, spec.positions).encode(texts, pairs)
    return [tokens[:, 0].tolist() for tokens in encoded.tokens], model.full_logits(
        pack_rows(encoded, np.arange(len(texts)))
    )


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("pairs", [False, True])
def test_tokens_and_logits_equal_transformers(checkpoints, name, pairs):
    texts = random_texts(0, LENGTHS)
    other = random_texts(1, LENGTHS)[::-1] if pairs else None
    (mine, logits), (expected, answers) = (run(checkpoints[name], texts, other) for run in (ours, theirs))
    assert max(map(len, expected)) == read_spec(read_config(checkpoints[name])).positions
    # Two equally long sides of a pair are cut from opposite ends by the two; what is fed to both is compared below.
    same = [one == two for one, two in zip(mine, expected, strict=True)]
    assert sum(same) >= len(texts) - (2 if pairs else 0)
    assert torch.allclose(logits[same], answers[same], atol=1e-5, rtol=1e-5)
    assert answers.std(dim=0).min() > 0.05


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(FAMILIES)),
    lengths=st.lists(st.integers(2, 45), min_size=1, max_size=5),
    seed=st.integers(0, 99),
    extra=st.integers(0, 3),
)
def test_any_batch_of_ids_gives_the_logits_of_transformers(both, name, lengths, seed, extra):
    model, mine = both[name]
    config, rng = model.config, np.random.default_rng(seed)
    kinds = config.to_dict().get("type_vocab_size", 0)
    sequences = [np.stack([rng.integers(5, config.vocab_size, n), np.sort(rng.integers(0, 2, n))], 1) for n in lengths]
    grid = np.full((len(lengths), max(lengths) + extra, 3), [config.pad_token_id, 0, 0])
    for row, sequence in zip(grid, sequences, strict=True):
        row[: len(sequence)] = np.c_[sequence, np.ones(len(sequence), dtype=int)]
    ids, segments, mask = torch.from_numpy(grid[:, :48]).unbind(-1)
    with torch.no_grad():
        expected = model(ids, attention_mask=mask, **({"token_type_ids": segments} if kinds > 1 else {})).logits
        together = mine.full_logits(pack(sequences))
        alone = torch.cat([mine.full_logits(pack([sequence])) for sequence in sequences])
    assert torch.allclose(together, expected, atol=1e-5, rtol=1e-5)
    assert torch.allclose(together, alone, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_weights_go_there_and_back_to_the_bit(name):
    model = families.family(name)
    spec = read_spec(model.config.to_dict())
    tensors = model.state_dict()
    back = to_hf(from_hf(tensors, spec, torch.cat), spec)
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[part], tensors[part]) for part in tensors)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_bare_encoder_keeps_its_weights_with_a_new_classifier(name):
    model = families.family(name)
    spec = read_spec(model.config.to_dict())
    whole = from_hf(model.state_dict(), spec, torch.cat)
    bare = from_hf(model.base_model.state_dict(), spec, torch.cat)
    assert {part for part in whole if part.startswith("encoder.")} <= bare.keys()
    assert "classifier.classes.weight" not in bare
    assert all(torch.equal(bare[part], whole[part]) for part in bare)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_folder_answers_alike_here_and_in_transformers(checkpoints, folders, name):
    texts = random_texts(2, LENGTHS)
    (ids, expected), (same, answers) = (theirs(where[name], texts) for where in (checkpoints, folders))
    assert same == ids and torch.equal(answers, expected)
    model, _ = load_model(folders[name])
    encoded = TextTokenizer(folders[name], model.spec.positions).encode(texts)
    with torch.no_grad():
        logits = model.full_logits(pack_rows(encoded, np.arange(len(texts))))
    assert torch.allclose(logits, expected, atol=1e-5, rtol=1e-5)
    config = json.loads((folders[name] / "config.json").read_text())
    assert config["architectures"] == [ARCHITECTURES[config["model_type"]].hf_class()]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_that_texts_reach_changes_an_answer(checkpoints, name):
    """A gradient for each tensor: none of them is forgotten in the forward."""
    model = load_hf(checkpoints[name], len(LABELS), "linear", ())
    encoded = TextTokenizer(checkpoints[name], model.spec.positions).encode(
        random_texts(0, LENGTHS), random_texts(1, LENGTHS)
    )
    model.full_logits(pack_rows(encoded, np.arange(len(encoded)))).square().sum().backward()
    for part, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, part


def test_the_transformers_classes_exist():
    import transformers

    for architecture in ARCHITECTURES.values():
        for task in ("SequenceClassification", "QuestionAnswering"):
            assert hasattr(transformers, architecture.hf_class(task))


def test_only_a_projection_behind_the_embeddings_costs_flops(checkpoints):
    specs = {name: read_spec(read_config(checkpoints[name])) for name in ("bert", "electra", "electra-unprojected")}
    lengths = np.array([3, 40])
    more = full_flops(specs["electra"], 3, lengths) - full_flops(specs["bert"], 3, lengths)
    assert more.tolist() == (2 * 16 * 32 * lengths).tolist() == embedding_flops(specs["electra"], lengths).tolist()
    assert (
        full_flops(specs["electra-unprojected"], 3, lengths).tolist() == full_flops(specs["bert"], 3, lengths).tolist()
    )
    rungs = rung_flops(specs["electra"], "pooler", 3, lengths, (1, 2, 3), (True, False))
    for row, length in zip(rungs, lengths.tolist(), strict=True):
        assert row[0] == path_flops(specs["electra"], "pooler", 3, [length], [1], final=False)
        assert row[2] == path_flops(specs["electra"], "pooler", 3, [length] * 3, [1], final=True)


@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
def test_deberta_is_refused_with_the_reason_and_what_works(model_type):
    with pytest.raises(UserError, match=r"disentangled.*roberta.*electra") as refusal:
        read_spec({"model_type": model_type})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("padding", [None, -1, "1"])
def test_a_padding_token_that_is_no_number_is_refused(checkpoints, padding):
    with pytest.raises(UserError, match="pad_token_id"):
        read_spec(read_config(checkpoints["roberta"]) | {"pad_token_id": padding})


def test_positions_that_the_offset_uses_up_are_refused(checkpoints):
    with pytest.raises(UserError, match="positions"):
        read_spec(read_config(checkpoints["roberta"]) | {"max_position_embeddings": 2})


@pytest.mark.parametrize("name", ["distilbert", "roberta"])
def test_segment_ids_do_not_matter_without_two_kinds(checkpoints, name):
    model = load_hf(checkpoints[name], len(LABELS), "linear", ()).eval()
    encoded = TextTokenizer(checkpoints[name], model.spec.positions).encode(random_texts(3, LENGTHS))
    batch = pack_rows(encoded, np.arange(len(encoded)))
    with torch.no_grad():
        assert torch.equal(
            model.full_logits(batch), model.full_logits(batch.with_states(np.maximum(batch.states, [0, 1])))
        )


def test_a_folder_is_whole_without_its_source(folders, tmp_path):
    """Everything that transformers wants of a tokenizer is in our folder."""
    for name in ("roberta", "xlm-roberta", "camembert"):
        copy = Path(shutil.copytree(folders[name], tmp_path / name))
        assert theirs(copy, ["ba ki"])[0] == theirs(folders[name], ["ba ki"])[0]
