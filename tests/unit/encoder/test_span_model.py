"""Span models: the same as transformers', whole folders, restored states under pruning, the soft forward's limit."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertForQuestionAnswering

from tests.kit.questions import make_contexts, make_questions, save_span_folder, tiny_qa
from ziggurat.data import TextTokenizer, pack, windows_of
from ziggurat.encoder import WEIGHTS, load_hf, load_model, soft_logits
from ziggurat.encoder.torch.model import IMPOSSIBLE, SPAN_HEAD
from ziggurat.recipe import PruningConfig, SpanConfig
from ziggurat.types import ProblemType

N = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_checkpoint):
    return save_span_folder(tmp_path_factory.mktemp("spans"), make_checkpoint)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory, make_checkpoint):
    config = PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9)
    return load_model(save_span_folder(tmp_path_factory.mktemp("pruned"), make_checkpoint, config))[0]


@pytest.fixture(scope="module")
def windows(tiny_checkpoint):
    tokenizer = TextTokenizer(tiny_checkpoint, 24)
    return windows_of(tokenizer, make_questions(), make_contexts(), SpanConfig(24, 5, 6))


def per_token(model, logits, batch):
    """Rows of the grid back as (n_tokens, 2)."""
    return torch.cat([logits[i, :, :n].T for i, n in enumerate(batch.lengths)])


def possible(batch):
    return torch.from_numpy(batch.states[:, 2] > 0)


def test_logits_equal_those_of_transformers(folder, windows):
    theirs, (mine, _) = BertForQuestionAnswering.from_pretrained(folder).eval(), load_model(folder)
    batch = pack(windows.tokens)
    with torch.no_grad():
        logits = per_token(mine, mine.full_logits(batch), batch)
        wanted = []
        for tokens in windows.tokens:
            ids = torch.from_numpy(tokens)[None]
            out = theirs(input_ids=ids[..., 0], token_type_ids=ids[..., 1])
            wanted.append(torch.stack([out.start_logits[0], out.end_logits[0]], dim=1))
    wanted, marks = torch.cat(wanted), possible(batch)
    assert torch.allclose(logits[marks], wanted[marks], atol=1e-5)
    assert (logits[~marks] == IMPOSSIBLE).all()
    assert mine.full_logits(batch).shape == (batch.n_seqs, 2, mine.spec.positions)


def test_the_folder_holds_the_checkpoints_tensors_bit_for_bit(folder):
    source, saved = load_file(folder.parent / "checkpoint" / WEIGHTS), load_file(folder / WEIGHTS)
    assert source.keys() == saved.keys()
    assert all(torch.equal(source[name], saved[name]) for name in source)


def test_an_encoder_without_span_head_starts_with_a_fresh_one(tiny_checkpoint):
    model = load_hf(tiny_checkpoint, 2, SPAN_HEAD, None, problem=ProblemType.QUESTION_ANSWERING)
    assert model.classifier.classes.weight.shape == (2, model.spec.hidden)
    assert model.head_layers == (1, 2, 3)
    assert not any("pooler" in name or "dense" in name for name in model.state_dict())


@torch.no_grad()
def test_every_rung_reads_restored_states(pruned, windows):
    batch, rule = pack(windows.tokens), pruned.token_rule
    every = pruned(batch, rule)
    assert torch.allclose(every[-1], pruned.full_logits(batch, rule), atol=1e-5)
    notes, live = pruned.encoder.embeddings(batch), pruned.embed(batch, rule)
    assert len(live.states) < len(notes.states)  # some words are not read
    last = notes.states.clone()
    for layer in range(1, N + 1):
        live = pruned.layer(layer, live, rule)
        for row, (begin, end) in enumerate(zip(live.cu_seqlens[:-1], live.cu_seqlens[1:], strict=True)):
            last[batch.cu_seqlens[row] + live.positions[begin:end]] = live.states[begin:end]
        said = pruned.head_at(layer)(batch.with_states(last))
        marks = possible(batch)
        assert torch.allclose(per_token(pruned, every[layer - 1], batch)[marks], said[marks], atol=1e-5)
    assert len(live.states) < len(batch.states) / 2


@torch.no_grad()
def test_the_soft_forward_ends_in_the_hard_one(pruned, windows):
    batch = pack(windows.tokens)
    with_words = pruned.token_rule
    config = pruned.pruning.config
    hard = pruned.full_logits(batch, with_words)
    # Entries are read or not by the sign of their score: a steep sigmoid of it is the hard mask.
    kept = pruned.pruning.vocabulary.clone()
    pruned.pruning.vocabulary.mul_(1e4)
    soft, masks = soft_logits(pruned, batch, 1e-5)
    pruned.pruning.vocabulary.copy_(kept)
    assert config.vocabulary is not None and len(masks) == N + 1
    assert torch.allclose(soft, hard, atol=1e-3)


def test_a_pruned_token_gets_a_gradient_through_its_state(pruned, windows):
    model, batch = pruned, pack(windows.tokens[:3])
    model.requires_grad_(True)
    logits = model.full_logits(batch, model.token_rule)
    torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.zeros(6, dtype=torch.long)).backward()
    gradient = model.encoder.embeddings.word.weight.grad
    unread = np.setdiff1d(batch.states[:, 0], np.flatnonzero(model.token_rule.vocabulary))
    assert len(unread) and (gradient[torch.from_numpy(unread)].abs().sum(dim=1) > 0).any()
    model.requires_grad_(False)


def test_transformers_writes_what_this_reads(tmp_path, make_checkpoint, windows):
    source = make_checkpoint(tiny_qa(), tmp_path / "qa")
    model = load_hf(source, 2, SPAN_HEAD, (), problem=ProblemType.QUESTION_ANSWERING).eval()
    assert torch.equal(model.classifier.classes.weight, tiny_qa().qa_outputs.weight)
