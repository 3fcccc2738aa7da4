"""Small sets of questions about made-up texts, and folders of tiny random models of spans."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

# The vocabulary of conftest's tokenizer, but for its five special tokens.
WORDS = tuple(
    start + end
    for start in ["ba", "ki", "lo", "mu", "ne", "po", "ra"]
    for end in ["t", "n", "sh", "r", "ss", "lm", "nd"]
)
MAX_LENGTH, STRIDE, QUESTION = 24, 5, 6
# Nasty contexts for windows of 24 tokens: one word, just what fits, one more, many windows.
CONTEXT_WORDS = (1, 3, 15, 16, 17, 40, 8, 95, 22, 2)


def make_contexts(seed: int = 0, lengths=CONTEXT_WORDS) -> list[str]:
    """Texts of so many words, with uneven white space and punctuation between them."""
    rng = np.random.default_rng(seed)
    return [
        "".join(word + rng.choice([" ", "  ", "\n", " "]) for word in rng.choice(WORDS, n)).strip() for n in lengths
    ]


def make_questions(seed: int = 0, n: int = len(CONTEXT_WORDS)) -> list[str]:
    """Questions of one to nine words."""
    rng = np.random.default_rng(seed + 1)
    return [" ".join(rng.choice(WORDS, rng.integers(1, 10))) for _ in range(n)]


def squad_content(n_articles: int = 40, seed: int = 0, unanswerable: bool = False) -> dict:
    """SQuAD's JSON: the answer is the word behind the one that is asked for. `unanswerable`: every third has none."""
    rng = np.random.default_rng(seed)
    articles = []
    for article in range(n_articles):
        paragraphs = []
        for paragraph in range(2):
            words = list(rng.permutation(WORDS)[:24])
            asked = []
            for number, place in enumerate(rng.choice(23, 3, replace=False).tolist()):
                golds = [{"text": words[place + 1], "answer_start": len(" ".join(words[: place + 1])) + 1}]
                none = unanswerable and number == 2
                one = {"id": f"{article}-{paragraph}-{number}", "question": words[place]}
                asked.append(
                    one | {"answers": [] if none else golds} | ({"is_impossible": none} if unanswerable else {})
                )
            paragraphs.append({"context": " ".join(words), "qas": asked})
        articles.append({"title": f"Article {article}", "paragraphs": paragraphs})
    return {"version": "toy", "data": articles}


def write_squad(path: Path, **settings) -> Path:
    """`squad_content` as a file."""
    path.write_text(json.dumps(squad_content(**settings)))
    return path


def tiny_qa(**changes):
    """A random BertForQuestionAnswering whose answers differ a lot between inputs, in evaluation mode."""
    import torch
    from transformers import BertConfig, BertForQuestionAnswering

    settings = {
        "vocab_size": 5 + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
    }
    torch.manual_seed(0)
    model = BertForQuestionAnswering(BertConfig(**settings | changes)).eval()
    _shake(model)
    return model


def _shake(module) -> None:
    """Moves every bias and LayerNorm weight away from its start."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))


def save_span_folder(work: Path, make_checkpoint, pruning=None, head_layers=(1, 2, 3), **changes) -> Path:
    """A finished model folder of spans, with exits after all layers and any pruning; manifest changes are taken."""
    import torch

    from ziggurat.data import SPAN_ENDS
    from ziggurat.encoder import Manifest, load_hf, save_model
    from ziggurat.encoder.torch.model import SPAN_HEAD
    from ziggurat.recipe import SpanConfig
    from ziggurat.types import ProblemType

    checkpoint = make_checkpoint(tiny_qa(), work / "checkpoint")
    torch.manual_seed(1)
    model = load_hf(checkpoint, 2, SPAN_HEAD, head_layers, pruning=pruning, problem=ProblemType.QUESTION_ANSWERING)
    _shake(model.exits)
    if pruning is not None and pruning.vocabulary is not None:
        with torch.no_grad():
            model.pruning.vocabulary.copy_(torch.linspace(-1, 3, model.spec.vocabulary).roll(7))
    values = {
        "labels": SPAN_ENDS,
        "pairs": True,
        "max_length": MAX_LENGTH,
        "head_kind": SPAN_HEAD,
        "head_layers": head_layers,
        "fingerprint": "",
        "problem_type": ProblemType.QUESTION_ANSWERING,
        "spans": SpanConfig(MAX_LENGTH, STRIDE, QUESTION, answer=4),
        "pruning": pruning,
    }
    save_model(model, Manifest(**values | changes), np.array([7], dtype=np.uint64), checkpoint, work / "model")
    return work / "model"
