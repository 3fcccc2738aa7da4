"""Converts a checkpoint's tokenizer to one complete `tokenizer.json`, with the ids that transformers gives.

In transformers, several files and its own classes override a checkpoint's `tokenizer.json`. The checkpoint was trained
with transformers' ids, so these are right. They are compared once, when a model folder is written.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ziggurat.data.settings import ADDED, AS_IT_IS, SPECIAL
from ziggurat.data.settings import CONFIG as SETTINGS
from ziggurat.data.tokenizer import TextTokenizer, one_line, speakable
from ziggurat.encoder.folder import CONFIG, MANIFEST, TOKENIZER, TOKENIZER_FILES, copy_files, read_json, read_manifest
from ziggurat.errors import UserError

_UNREADABLE = "no tokenizer that transformers can read"
_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model")
_CONVERTERS = {"sentencepiece": "sentencepiece", "google.protobuf": "protobuf"}  # module → package
_SEGMENTS = "token_type_ids"
# Settings of transformers' tokenizer classes. Unused here, but copied for programs that name such a class.
_COPIED = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space")
_ROWS = 256  # rows whose ids are compared
# Texts in the comparison are cut to this many characters per token: transformers also tokenises what it cuts off, at
# quadratic cost for pairs.
_CHARACTERS = 8
_LISTED = 1_000  # added tokens in the comparison
PROBE = (
    "",
    "a",
    "The Quick BROWN fox, it's 3.14% of U.S.A. (isn't it?)",
    "ÀÉÎÕÜ àéîõü Ångström naïve façade İstanbul ß ẞ ﬁ Ⅷ ½",
    "e\u0301 n\u0303 A\u030a \u1100\u1161 \u0130 \u01c5 Ελλάς ΣΑΣ Привет ЁЖ שלום مرحبا हिन्दी ไทย",
    "我爱北京天安门 東京タワー 서울 中a文b",
    "don't!!! -- well... “quoted” ‘x’ a/b\\c_d #tag @user mail@host.org http://x.y/z?q=1&r=2 <b>&amp;</b> `co` ~^|{}[]",
    "  leading, double  spaces\tand\nnew\r\nlines \u00a0nbsp \u3000wide \u200bzero\u200d \ufeff \u2028 trailing  ",
    "\x07bell \x7f \x85 \ufffd \x00nul\x00l soft\u00adhyphen",
    "🙂 👩‍👩‍👧 🇩🇪 ❤️ 👍🏽 🤷",
    "0 00 1234567890 1,000.50 ٣٤ ²",
    "pneumono" * 30,
)


def read_tokenizer(
    source: Path, max_length: int, texts: Sequence[str] = (), pairs: Sequence[str] | None = None
) -> TextTokenizer:
    """Opens the tokenizer that `copy_tokenizer` would write.

    UserError if its ids differ from transformers' on a sample of the n texts, or pairs of texts.
    """
    with TemporaryDirectory() as made:
        tokenizer = copy_tokenizer(source, Path(made), max_length)
    reference = _reference(source)
    if reference is None or not len(texts):
        return tokenizer
    sample = np.unique(np.linspace(0, len(texts) - 1, min(len(texts), _ROWS)).round().astype(np.int64))
    longest = _CHARACTERS * max_length
    columns = [[speakable(column[row])[:longest] for row in sample] for column in (texts, pairs) if column is not None]
    _refuse_other(source, columns, _ids(reference, columns, max_length), tokenizer.encode(*columns).tokens)
    return tokenizer


def copy_tokenizer(source: Path, target: Path, max_length: int) -> TextTokenizer:
    """Writes the tokenizer of folder `source` into `target`, for texts of up to `max_length` tokens; opens it.

    A Ziggurat folder has a complete tokenizer.json, and a folder without configuration is copied unchanged. For a
    checkpoint, transformers makes it, if installed. UserError if there is no tokenizer, or tokenizer.json cannot
    express it.
    """
    reference = _reference(source)
    if reference is None:
        copied = TextTokenizer(source, max_length)  # refuses unreadable or contradicting files
        copy_files(source, target, (TOKENIZER, SETTINGS, SPECIAL, ADDED))
        if (target / SETTINGS).is_file():
            _write_settings(target, read_json(target / SETTINGS, "") | {"model_max_length": max_length})
        return copied
    from transformers import PreTrainedTokenizerFast

    with one_line(source, _UNREADABLE):
        (target / TOKENIZER).write_text(_state(reference, max_length), "utf-8")
        _write_settings(target, _settings(reference, max_length))
        reloaded = PreTrainedTokenizerFast.from_pretrained(target, local_files_only=True)
    written = TextTokenizer(target, max_length, named=source)
    texts = _texts(reference, max_length)
    for columns in ([texts], [texts, texts[::-1]], [texts, texts[1:] + texts[:1]]):
        wanted = _ids(reference, columns, max_length)
        _refuse_other(source, columns, wanted, written.encode(*columns).tokens)
        _refuse_other(source, columns, wanted, _ids(reloaded, columns, max_length))
    return written


def own_length(folder: Path, positions: int) -> int:
    """Maximum length in tokens of a folder's model, at most `positions`: from its manifest or tokenizer settings."""
    if (folder / MANIFEST).is_file():
        return min(read_manifest(folder).max_length, positions)
    if not (folder / SETTINGS).is_file():
        return positions
    settings = read_json(folder / SETTINGS, f"{folder}: no {SETTINGS}")
    stated = settings.get("model_max_length", settings.get("max_len"))
    return int(min(stated, positions)) if isinstance(stated, int | float) and stated >= 1 else positions


def _reference(source: Path) -> Any:
    """The tokenizer that transformers loads for a checkpoint; None = transformers is missing, or not needed.

    UserError if transformers cannot load it, or has only a slow (Python) tokenizer.
    """
    if (source / MANIFEST).is_file() or not (source / CONFIG).is_file():
        return None
    try:
        from transformers import AutoTokenizer, logging
    except ModuleNotFoundError:
        return None
    _refuse_unconverted(source)
    before = logging.get_verbosity()
    logging.set_verbosity_error()  # its warnings about unreadable files are long
    try:
        with one_line(source, _UNREADABLE):
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True, trust_remote_code=False)
            # Without a vocabulary, transformers makes one of special tokens only: every word is unknown.
            made_up = len(tokenizer) <= len(tokenizer.all_special_tokens)
    except UserError:
        for name in TOKENIZER_FILES:
            if name.endswith(".json") and (source / name).is_file():
                read_json(source / name, "")  # its error names the broken file
        raise
    finally:
        logging.set_verbosity(before)
    if made_up:
        raise UserError(f"{source}: no tokenizer; copy tokenizer.json or vocab.txt there, or save_pretrained it")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            f"{source}: its tokenizer ({type(tokenizer).__name__}) has only a Python implementation, which {TOKENIZER} "
            "cannot express; use a checkpoint with a fast tokenizer"
        )
    return tokenizer


def _refuse_unconverted(source: Path) -> None:
    """UserError if there is only a SentencePiece model, and packages to convert it are missing."""
    models = [name for name in _SENTENCEPIECE if (source / name).is_file()]
    missing = [package for module, package in _CONVERTERS.items() if not _is_there(module)]
    if models and missing and not (source / TOKENIZER).is_file():
        raise UserError(
            f"{source}: has {models[0]} and no {TOKENIZER}; pip install {' '.join(missing)}, and it will be converted"
        )


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _state(reference: Any, max_length: int) -> str:
    """The `tokenizer.json` of the tokenizer that transformers loaded."""
    state = json.loads(reference.backend_tokenizer.to_str())
    state |= {"padding": None, "truncation": None}
    if reference.truncation_side == "left":
        state["truncation"] = {"direction": "Left", "max_length": max_length, "strategy": "LongestFirst", "stride": 0}
    if _SEGMENTS not in reference.model_input_names:  # then the model gets no segment ids, even if the file has them
        state["post_processor"] = _in_one_segment(state["post_processor"])
    return json.dumps(state, ensure_ascii=False)


def _settings(reference: Any, max_length: int) -> dict[str, Any]:
    """A `tokenizer_config.json` with which transformers uses `tokenizer.json` unchanged."""
    copied = {key: reference.init_kwargs[key] for key in _COPIED if key in reference.init_kwargs}
    named = {name: str(token) for name, token in reference.special_tokens_map.items() if name.endswith("_token")}
    names = {"model_input_names": list(reference.model_input_names), "padding_side": reference.padding_side}
    return {
        **{
            "tokenizer_class": AS_IT_IS[0],
            "model_max_length": max_length,
            "truncation_side": reference.truncation_side,
        },
        **(names | named | copied),
    }


def _write_settings(folder: Path, settings: dict[str, Any]) -> None:
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False) + "\n", "utf-8")


def _in_one_segment(part: Any) -> Any:
    """A post-processor that gives all tokens segment 0."""
    if isinstance(part, list):
        return [_in_one_segment(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    if part.get("type") == "BertProcessing":
        cls, sep = ({"id": token, "ids": [index], "tokens": [token]} for token, index in (part["cls"], part["sep"]))
        single = [_special(cls), _side("A"), _special(sep)]
        pair = [*single, _side("B"), _special(sep)]
        special = {token["id"]: token for token in (cls, sep)}
        return {"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": special}
    return {key: 0 if key == "type_id" else _in_one_segment(inner) for key, inner in part.items()}


def _special(token: dict[str, Any]) -> dict[str, Any]:
    return {"SpecialToken": {"id": token["id"], "type_id": 0}}


def _side(name: str) -> dict[str, Any]:
    return {"Sequence": {"id": name, "type_id": 0}}


def _texts(reference: Any, max_length: int) -> list[str]:
    """Texts on which tokenizers often differ: `PROBE`, special and added tokens in context, and two long texts."""
    tokens = [str(token) for token in reference.added_tokens_decoder.values()][:_LISTED]
    texts = [*PROBE, *(f"a {token} b{token}c {token.upper()} {token.lower()}{token} ,{token}" for token in tokens)]
    long = (" ".join(texts) + " a" * max_length)[: _CHARACTERS * max_length]
    return [*texts, long, long[::-1]]


def _ids(reference: Any, columns: Sequence[list[str]], max_length: int) -> list[np.ndarray]:
    """Ids that transformers gives to n texts, or pairs: n arrays (length, 2) of token and segment ids."""
    read = reference(*columns, truncation=True, max_length=max_length)
    tokens = [np.array(ids, dtype=np.int64) for ids in read["input_ids"]]
    segments = read[_SEGMENTS] if _SEGMENTS in read else [np.zeros_like(ids) for ids in tokens]
    return [np.stack([ids, np.array(kinds)], axis=1) for ids, kinds in zip(tokens, segments, strict=True)]


def _refuse_other(
    source: Path, columns: Sequence[list[str]], wanted: Sequence[np.ndarray], found: Sequence[np.ndarray]
) -> None:
    """UserError for the first text, or pair, whose ids differ from the wanted ones."""
    for row, (ids, expected) in enumerate(zip(found, wanted, strict=True)):
        if not np.array_equal(ids, expected):
            text = " | ".join(column[row][:60] for column in columns)
            raise UserError(
                f"{source}: transformers reads {text!r} as {expected[:8, 0].tolist()}…, which "
                f"no {TOKENIZER} can express ({ids[:8, 0].tolist()}…); save its tokenizer again with save_pretrained"
            )
