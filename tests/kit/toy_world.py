"""What the examples of the documentation find in their folder: tiny models and invented rows under the usual names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

TOPICS = {
    "business": [
        "oil",
        "prices",
        "fall",
        "rise",
        "bank",
        "market",
        "shares",
        "profit",
        "trade",
        "deal",
        "stocks",
        "rates",
    ],
    "science": ["planet", "cell", "theory", "lab", "study", "star", "gene", "atom", "data", "telescope", "virus"],
    "sport": ["match", "team", "goal", "wins", "cup", "coach", "score", "player", "league", "race", "final"],
}
COMMON = [
    "the",
    "a",
    "again",
    "who",
    "won",
    "what",
    "did",
    "new",
    "in",
    "of",
    "on",
    "for",
    "as",
    "after",
    "is",
    "was",
    "this",
    "it",
    "and",
]
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
}


def vocabulary() -> list[str]:
    """All words, a few pieces and the special tokens."""
    return [*SPECIAL, *sorted({word for words in TOPICS.values() for word in words} | set(COMMON)), "?", ".", ","]


def rows(n: int, seed: int) -> list[dict[str, Any]]:
    """Texts of 3 to 12 words; two thirds of the words tell the topic."""
    rng = np.random.default_rng(seed)
    made = []
    for number in rng.integers(0, len(TOPICS), n):
        topic = list(TOPICS)[number]
        words = [rng.choice(TOPICS[topic] if rng.random() < 0.67 else COMMON) for _ in range(rng.integers(3, 13))]
        made.append({"text": " ".join(words), "label": topic})
    return made


def pairs(n: int, seed: int) -> list[dict[str, Any]]:
    """Pairs of texts, labelled by whether their topics are the same."""
    firsts, seconds = rows(n, seed), rows(n, seed + 1)
    return [
        {"text": a["text"], "text_pair": b["text"], "label": "same" if a["label"] == b["label"] else "other"}
        for a, b in zip(firsts, seconds, strict=True)
    ]


def scores(n: int, seed: int) -> list[dict[str, Any]]:
    """Texts with the share of sport's words in them as the label, a number."""
    made = []
    for row in rows(n, seed):
        words = row["text"].split()
        made.append({"text": row["text"], "label": round(float(np.mean([w in TOPICS["sport"] for w in words])), 3)})
    return made


def tags(n: int, seed: int) -> list[dict[str, Any]]:
    """Texts with all topics that any of their words belongs to."""
    made = []
    for first, second in zip(rows(n, seed), rows(n, seed + 1), strict=True):
        text = f"{first['text']} {second['text']}"
        made.append({"text": text, "label": sorted({first["label"], second["label"]})})
    return made


def questions(n_articles: int, seed: int) -> dict[str, Any]:
    """SQuAD's JSON: the question is a word of the context, the answer the word behind it."""
    rng = np.random.default_rng(seed)
    words = [word for topic in TOPICS.values() for word in topic]
    articles = []
    for article in range(n_articles):
        context = list(rng.permutation(words)[:20])
        asked = []
        for number, place in enumerate(rng.choice(19, 3, replace=False).tolist()):
            answer = {"text": context[place + 1], "answer_start": len(" ".join(context[: place + 1])) + 1}
            asked.append({"id": f"{article}-{number}", "question": context[place], "answers": [answer]})
        articles.append({"title": f"Article {article}", "paragraphs": [{"context": " ".join(context), "qas": asked}]})
    return {"version": "toy", "data": articles}


def write_lines(path: Path, values: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(value) + "\n" for value in values), "utf-8")


def write_encoder(folder: Path) -> Path:
    """An encoder that has learned nothing, with its tokenizer: what `train` starts from."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    words = vocabulary()
    BertModel(BertConfig(vocab_size=len(words), **SIZES)).save_pretrained(folder)
    BertTokenizer(vocab={word: i for i, word in enumerate(words)}, model_max_length=512).save_pretrained(folder)
    return folder


def write_rows(folder: Path) -> None:
    """Every file of rows that the examples name."""
    for name, make in {"": rows, "pairs-": pairs, "scores-": scores, "tags-": tags}.items():
        write_lines(folder / f"{name}train.jsonl", make(1200, 1))
        write_lines(folder / f"{name}test.jsonl", make(80, 3))
    write_lines(folder / "rows.jsonl", rows(1200, 1))
    write_lines(folder / "new.jsonl", [{"text": row["text"]} for row in rows(60, 5)])
    for name, seed in (("train", 1), ("dev", 2)):
        (folder / f"squad-{name}.json").write_text(json.dumps(questions(60, seed)), "utf-8")


def shortened(recipe: Any) -> Any:
    """The recipe with a few epochs at rates that suit a tiny model, and most rows kept to certify with."""
    stages = [
        replace(stage, epochs=2 if stage.kind == "regular" else 1, learning_rate=3e-3, batch_size=16)
        for stage in recipe.stages
    ]
    small = None if recipe.small is None else replace(recipe.small, epochs=1)
    augment = None if recipe.augment is None else replace(recipe.augment, copies=1)
    return replace(recipe, stages=tuple(stages), small=small, augment=augment, certify=0.7)
