"""Settings in the files beside a `tokenizer.json`: in transformers they override it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ziggurat.contents import read_json
from ziggurat.errors import UserError

CONFIG, SPECIAL, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
AS_IT_IS = ("PreTrainedTokenizerFast", "TokenizersBackend")  # classes that make no part of a tokenizer.json anew
# What the other classes put into a part of it: key → the part's type, its own key, and what an unstated key means.
_MADE_ANEW: Mapping[str, tuple[str, str, Any]] = {
    "do_lower_case": ("BertNormalizer", "lowercase", True),
    "strip_accents": ("BertNormalizer", "strip_accents", None),
    "tokenize_chinese_chars": ("BertNormalizer", "handle_chinese_chars", True),
    "add_prefix_space": ("ByteLevel", "add_prefix_space", False),
}
_ENDS = (("cls_token", "bos_token"), ("sep_token", "eos_token"))  # some classes take the former, some the latter
_EXTRA = ("extra_special_tokens", "additional_special_tokens")
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")

Token = tuple[Any, int | None]  # a string or a mapping with `content` and flags; its id where it is stated


def refuse_other_settings(folder: Path, tokenizer: Any) -> None:
    """UserError if the files beside a folder's `tokenizer.json` have different settings.

    `tokenizer` is the `tokenizers.Tokenizer` of that file, with its truncation.
    """
    config, special, added = (_read(folder / name) for name in (CONFIG, SPECIAL, ADDED))
    decoder = config.get("added_tokens_decoder")
    numbered = decoder.items() if isinstance(decoder, Mapping) else ()
    tokens: dict[str, list[Token]] = {
        CONFIG: [*_named(config), *((token, int(index)) for index, token in numbered if index.isdecimal())],
        SPECIAL: list(_named(special)),
        ADDED: [(token, index) for token, index in added.items() if isinstance(index, int)],
    }
    found = [
        (name, setting) for name, given in tokens.items() if (setting := _other_token(given, tokenizer)) is not None
    ]
    found += [(CONFIG, setting) for setting in _other_values(config, tokenizer)]
    for name, setting in found:
        raise UserError(
            f"{folder / name}: says {setting}, and tokenizer.json, which the model was made with, another thing; "
            "copy the folder again, or adapt or train the checkpoint again"
        )


def cut_side(tokenizer: Any) -> str:
    """The side, "left" or "right", at which a `tokenizer.json` cuts long texts."""
    truncation: Mapping[str, str] = tokenizer.truncation or {}
    return truncation.get("direction", "right").lower()


def _read(path: Path) -> dict[str, Any]:
    """A JSON object, empty where there is no file."""
    return read_json(path, "") if path.exists() else {}


def _named(config: Mapping[str, Any]) -> Iterator[Token]:
    """Special tokens that have a name, such as `mask_token`, and the extra ones."""
    for key, value in config.items():
        if key.endswith("_token"):
            yield _content(value), None
    for key in _EXTRA:
        extra = config.get(key)
        listed = extra.values() if isinstance(extra, Mapping) else extra if isinstance(extra, list) else ()
        yield from ((_content(token), None) for token in listed)


def _content(token: Any) -> Any:
    return token.get("content") if isinstance(token, Mapping) else token


def _other_token(tokens: list[Token], tokenizer: Any) -> str | None:
    """The first token that the tokenizer does not know as a single token, or knows with other flags."""
    known = {token.content: (index, token) for index, token in tokenizer.get_added_tokens_decoder().items()}
    for token, index in tokens:
        content = _content(token)
        if not isinstance(content, str):
            continue
        if content not in known or index not in (None, known[content][0]):
            return f"that {content!r} is one token" + ("" if index is None else f", number {index}")
        for flag in _FLAGS:
            if isinstance(token, Mapping) and token.get(flag, getattr(known[content][1], flag)) != getattr(
                known[content][1], flag
            ):
                return f"{flag} {token[flag]!r} of the token {content!r}"
    return None


def _other_values(config: Mapping[str, Any], tokenizer: Any) -> Iterator[str]:
    """All settings that differ in the tokenizer."""
    if config.get("truncation_side", cut_side(tokenizer)) != cut_side(tokenizer):
        yield f"truncation_side {config['truncation_side']!r}"
    if config.get("split_special_tokens"):
        yield "split_special_tokens true"
    if not config or config.get("tokenizer_class") in AS_IT_IS:
        return
    parts = [part for part in (tokenizer.normalizer, tokenizer.pre_tokenizer) if part is not None]
    states = [json.loads(part.__getstate__()) for part in parts]
    for key, (kind, name, unstated) in _MADE_ANEW.items():
        for state in states:
            if state.get("type") == kind and state.get(name) != config.get(key, unstated):
                yield f"{key} {config.get(key, unstated)!r}"
    for names, token in zip(_ENDS, _frame_ends(tokenizer), strict=True):
        stated = {name: _content(config[name]) for name in names if config.get(name) is not None}
        if stated and token is not None and token not in stated.values():
            yield " and ".join(f"{name} {content!r}" for name, content in stated.items())


def _frame_ends(tokenizer: Any) -> tuple[str | None, str | None]:
    """The tokens that a `tokenizer.json` puts before and after a text; None where the file does not name them."""
    state = {} if tokenizer.post_processor is None else json.loads(tokenizer.post_processor.__getstate__())
    for part in (state, *state.get("processors", ())):
        if "cls" in part and "sep" in part:
            return part["cls"][0], part["sep"][0]
        if part.get("single"):
            pieces = (part["single"][0], part["single"][-1])
            first, last = (piece.get("SpecialToken", {}).get("id") for piece in pieces)
            return first, last
    return None, None
