"""Tokenizers of four kinds, trained on invented sentences, in folders as transformers saves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

SENTENCES = (
    "The Tower of stones stands by the river, and the tower's shadow falls on 14 boats.",
    "Ángela naïvely counted 2,500 stones; Öland's façade was über-old!",
    "the river, the RIVER and The River (see p. 3) are one: [ok] <br> e-mail me@tower.org",
    "我们在河边 看见 石头 and 🙂 emoji 🙂 on stones",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z A B C D E F G H I J K L M N O P",
)
BERTS = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
ROBERTAS = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
ROBERTAS |= {"cls_token": "<s>", "sep_token": "</s>"}
SIZE = 400  # entries that a trained vocabulary may have; byte-level ones begin with 256


def wordpiece(lowercase: bool) -> Tokenizer:
    """As BERT's, cased or uncased."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=SIZE, special_tokens=list(BERTS.values())))
    tokenizer.post_processor = _template(tokenizer, "[CLS] $A [SEP] $B:1 [SEP]:1", "[CLS]", "[SEP]")
    return tokenizer


def byte_level(special: Mapping[str, str]) -> Tokenizer:
    """As RoBERTa's, or with the special tokens of BERT as ModernBERT's."""
    tokenizer = Tokenizer(models.BPE(unk_token=special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    names = list(dict.fromkeys(special.values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    _train(tokenizer, trainers.BpeTrainer(vocab_size=SIZE, special_tokens=names, initial_alphabet=alphabet))
    cls, sep = special["cls_token"], special["sep_token"]
    if special is ROBERTAS:
        ends = [(token, tokenizer.token_to_id(token)) for token in (sep, cls)]
        tokenizer.post_processor = processors.RobertaProcessing(*ends)
    else:
        tokenizer.post_processor = _template(tokenizer, f"{cls} $A {sep} $B {sep}", cls, sep)
    return tokenizer


def unigram() -> Tokenizer:
    """As XLM-R's."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    _train(tokenizer, trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>"))
    tokenizer.add_special_tokens(["<mask>"])
    tokenizer.post_processor = _template(tokenizer, "<s> $A </s> </s> $B </s>", "<s>", "</s>")
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: Any) -> None:
    trainer.show_progress = False
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)


def _template(tokenizer: Tokenizer, pair: str, *special: str) -> Any:
    single = " ".join(pair.split(" $B")[0].split(" ")[:3])
    ids = [(token, tokenizer.token_to_id(token)) for token in special]
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=ids)


KINDS: Mapping[str, tuple[Any, Mapping[str, str], Mapping[str, Any]]] = {  # tokenizer, its names, its settings
    "uncased": (lambda: wordpiece(True), BERTS, {"tokenizer_class": "BertTokenizer", "do_lower_case": True}),
    "cased": (lambda: wordpiece(False), BERTS, {"tokenizer_class": "BertTokenizer", "do_lower_case": False}),
    "byte-level": (lambda: byte_level(ROBERTAS), ROBERTAS, {"tokenizer_class": "RobertaTokenizer"}),
    "modern": (
        lambda: byte_level(BERTS),
        BERTS,
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_input_names": ["input_ids", "attention_mask"]},
    ),
    "unigram": (unigram, ROBERTAS, {"tokenizer_class": "XLMRobertaTokenizer"}),
}


def save_tokenizer(kind: str, folder: Path) -> int:
    """Writes a kind's `tokenizer.json` and settings; returns how many ids it has."""
    make, special, settings = KINDS[kind]
    tokenizer = make()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(dict(settings) | dict(special) | {"model_max_length": 24}))
    return int(tokenizer.get_vocab_size())
