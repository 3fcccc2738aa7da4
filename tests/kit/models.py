"""Tiny random classifiers whose answers differ a lot between inputs, and the folders they come in."""

from __future__ import annotations

from pathlib import Path

from tests.kit.families import shake

LABELS = ("river", "stone", "tower")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = tuple(
    start + end
    for start in ["ba", "ki", "lo", "mu", "ne", "po", "ra"]
    for end in ["t", "n", "sh", "r", "ss", "lm", "nd"]
)
# Nasty lengths: the least that there is, many alike, one giant among dwarfs.
LENGTHS = (3, 2, 2, 60, 9, 3, 17, 5, 2, 33, 9, 24, 4, 12, 3, 41, 7, 9, 28, 2)


def tiny_bert(**changes):
    """A random BertForSequenceClassification whose answers differ a lot between inputs, in evaluation mode.

    BERT's own start (deviation 0.02, biases 0, LayerNorms 1) gives every input nearly the same logits, and could not
    tell a bias or a LayerNorm that was lost or mixed up.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    settings = {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "initializer_range": 0.2,
        "id2label": dict(enumerate(LABELS)),
    } | changes
    if settings["id2label"] is not None:
        settings.setdefault("label2id", {label: i for i, label in settings["id2label"].items()})
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**settings)).eval()
    shake(model)
    return model


def save_checkpoint(model, folder: Path) -> Path:
    """A Hugging Face folder of this model, as a user would bring it."""
    from transformers import BertTokenizer

    model.save_pretrained(folder)
    vocabulary = {piece: i for i, piece in enumerate((*SPECIAL, *WORDS))}
    BertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder
