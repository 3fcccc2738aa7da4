"""Tiny random classifiers of every architecture, made by transformers, in folders with a tokenizer of their kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABELS = ("river", "stone", "tower")
LETTERS = "abehiklmnoprstu"
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {  # name → transformers' classes, what its configuration says
    "bert": ("Bert", {}),
    "tinybert": ("Bert", {"hidden_size": 48, "num_attention_heads": 4, "hidden_act": "gelu_new"}),  # heads of 12
    "roberta": ("Roberta", {"type_vocab_size": 1}),
    "xlm-roberta": ("XLMRoberta", {"type_vocab_size": 1}),
    "camembert": ("Camembert", {"type_vocab_size": 1}),
    "distilbert": ("DistilBert", {}),
    "electra": ("Electra", {"embedding_size": 16, "initializer_range": 0.3}),
    "electra-unprojected": ("Electra", {"embedding_size": 32}),
    "ernie-1": ("Ernie", {"hidden_act": "relu"}),
    "ernie-2": ("Ernie", {"use_task_id": True, "task_type_vocab_size": 3}),
    "modernbert": ("ModernBert", {"local_attention": 8, "initializer_range": 0.3}),
    "modernbert-mean": (  # all that its configuration can ask for
        "ModernBert",
        {
            "local_attention": 6,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            "classifier_pooling": "mean",
            "hidden_activation": "gelu_pytorch_tanh",
            "classifier_activation": "tanh",
            "initializer_range": 0.3,
            **dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True),
        },
    ),
}
_MODERNBERT_IDS = {"bos_token_id": 2, "cls_token_id": 2, "sep_token_id": 3, "eos_token_id": 3, "pad_token_id": 0}
_SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 48,
    "initializer_range": 0.2,
}
_DISTILBERT = {"dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 64} | {
    key: _SIZES[key] for key in ("max_position_embeddings", "initializer_range")
}


def tokenizer_of(name: str) -> Any:
    """A transformers tokenizer of the family's kind: WordPiece, byte-level BPE or Unigram over the same few letters."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    if name == "roberta":
        merges = [("b", "a"), ("Ġ", "ba"), ("k", "i"), ("Ġ", "ki"), ("s", "t")]
        joined = [one + other for one, other in merges]
        pieces = ["<s>", "<pad>", "</s>", "<unk>", *sorted(ByteLevel.alphabet()), *joined, "<mask>"]
        return transformers.RobertaTokenizer(vocab={piece: i for i, piece in enumerate(pieces)}, merges=merges)
    if name in ("xlm-roberta", "camembert"):
        special = ["<s>", "<pad>", "</s>", "<unk>"]
        scored = [("▁", -1.0), *((letter, -4.0) for letter in LETTERS), ("ba", -5.0), ("▁ki", -5.0), (",", -4.0)]
        vocabulary = [*((piece, 0.0) for piece in special), *scored, ("<mask>", 0.0)]
        kind = transformers.XLMRobertaTokenizer if name == "xlm-roberta" else transformers.CamembertTokenizer
        return kind(vocab=vocabulary)
    if name.startswith("modernbert"):
        return _byte_level_with_brackets()
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ",", "ba", "ki", *LETTERS, *(f"##{one}" for one in LETTERS)]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    kind = transformers.DistilBertTokenizer if name == "distilbert" else transformers.BertTokenizer
    return kind(vocab=vocabulary)


def _byte_level_with_brackets() -> Any:
    """ModernBERT's kind: byte-level BPE as in RoBERTa, special tokens as in BERT."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = {
        "pad_token": "[PAD]",
        "unk_token": "[UNK]",
        "cls_token": "[CLS]",
        "sep_token": "[SEP]",
        "mask_token": "[MASK]",
    }
    pieces = [*special.values(), *LETTERS, "Ġ", ",", "ba", "Ġba", "ki", "Ġki", "st"]
    merges = [("b", "a"), ("Ġ", "ba"), ("k", "i"), ("Ġ", "ki"), ("s", "t")]
    tokenizer = Tokenizer(models.BPE({piece: i for i, piece in enumerate(pieces)}, merges, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", pieces.index("[CLS]")), ("[SEP]", pieces.index("[SEP]"))],
    )
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_input_names=inputs, **special)


def family(name: str, **changes: Any) -> Any:
    """A random classifier of this family whose answers differ a lot between inputs, in evaluation mode."""
    import torch
    import transformers

    classes, settings = FAMILIES[name]
    sizes = _DISTILBERT if name == "distilbert" else _SIZES
    names = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
    vocabulary = {"vocab_size": len(tokenizer_of(name))} | (_MODERNBERT_IDS if name.startswith("modernbert") else {})
    config = getattr(transformers, f"{classes}Config")(**sizes | vocabulary | names | dict(settings) | changes)
    torch.manual_seed(0)
    model = getattr(transformers, f"{classes}ForSequenceClassification")(config).eval()
    shake(model)
    return model


def save_family(name: str, folder: Path, **changes: Any) -> Path:
    """Its Hugging Face folder, as a user would bring it."""
    family(name, **changes).save_pretrained(folder)
    tokenizer_of(name).save_pretrained(folder)
    return folder


def shake(module: Any) -> None:
    """Moves every bias and LayerNorm weight away from its start."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))


def save_adaptive(
    name: str, folder: Path, pruning: Any = None, head_kind: str = "pooler", pairs: bool = False, **changes: Any
) -> Path:
    """A finished model folder of this family in `folder`/model, a head after each layer but the last."""
    import numpy as np
    import torch

    from ziggurat.encoder import Manifest, load_hf, save_model

    source = save_family(name, folder / "source", **changes)
    torch.manual_seed(1)
    model = load_hf(source, len(LABELS), head_kind, None, pruning=pruning)
    shake(model.exits)
    manifest = Manifest(LABELS, pairs, model.spec.positions, head_kind, model.head_layers, "", pruning=pruning)
    save_model(model, manifest, np.array([1], dtype=np.uint64), source, folder / "model")
    return folder / "model"


def random_texts(seed: int, lengths: Sequence[int]) -> list[str]:
    """One text of so many words for each length, in the letters that all the tokenizers know."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return [" ".join("".join(rng.choice(list(LETTERS), rng.integers(1, 7))) for _ in range(n)) + "," for n in lengths]
