"""What a model reads of a text is what transformers reads of it with the checkpoint, whichever file says so."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.kit.families import LABELS, family
from tests.kit.tokenizers import KINDS, SENTENCES, save_tokenizer
from ziggurat.data import TextTokenizer
from ziggurat.encoder import Manifest, copy_tokenizer, load_hf, save_model
from ziggurat.engine import OpenedModel
from ziggurat.errors import UserError

LENGTH = 24  # tokens that are read
SPARE = 8  # embeddings that no token of the vocabulary has, for those that settings add
CONFIG, SPECIAL = "tokenizer_config.json", "special_tokens_map.json"
NEW = {"content": "<url>", "special": True, "lstrip": True, "rstrip": False, "normalized": False, "single_word": False}
WORD = NEW | {"content": "Boat", "special": False, "lstrip": False, "normalized": True}
TEXTS = (
    *SENTENCES[:4],
    "a",
    "A",
    "Boat boat a<url>b <url> [MASK]<mask> [CLS] <s>the</s> [SEP]x <URL>",
    "the <pad> river <pad><pad>stones [PAD] <pad>",
    "Stones\tand\u00a0 stones ",
    "ÅÉ e\u0301 我x的 nu\x00l",
)
ENCODERS = (
    ("uncased", "bert"), ("uncased", "tinybert"), ("uncased", "distilbert"), ("uncased", "ernie-1"), ("cased", "bert"),
    ("cased", "electra"), ("cased", "ernie-2"), ("byte-level", "roberta"), ("byte-level", "bert"),
    ("modern", "modernbert"), ("modern", "modernbert-mean"), ("unigram", "xlm-roberta"), ("unigram", "camembert"),
)  # fmt: skip
FIRST = {kind: next(encoder for known, encoder in ENCODERS if known == kind) for kind in KINDS}


def edit(folder: Path, file: str = CONFIG, **changes: Any) -> None:
    """Sets keys of a JSON file, which may be new; None removes one."""
    path = folder / file
    values = (json.loads(path.read_text()) if path.exists() else {}) | changes
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def added(folder: Path) -> dict[str, Any]:
    """Two new tokens, with the ids behind the vocabulary."""
    n = TextTokenizer(folder, LENGTH).n_ids()
    return {str(n): NEW, str(n + 1): WORD}


def in_added_tokens(folder: Path) -> None:
    """New tokens as older versions saved them."""
    edit(folder, "added_tokens.json", **{token["content"]: int(index) for index, token in added(folder).items()})


def in_vocab_file(folder: Path) -> None:
    """The vocabulary as older versions saved it, without tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    if model["type"] == "WordPiece":
        (folder / "vocab.txt").write_text(
            "".join(f"{piece}\n" for piece in sorted(model["vocab"], key=model["vocab"].get))
        )
    else:
        (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
        (folder / "merges.txt").write_text(
            "#version: 0.2\n" + "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
        )
    (folder / "tokenizer.json").unlink()


def old_frame(folder: Path) -> None:
    """The frame as the `tokenizers` library wrote it first, and a class that hands the model no segments."""
    tokenizer = TextTokenizer(folder, LENGTH)
    first, last = (tokenizer.frame(1).blocks[place][0, :1] for place in (0, -1))
    ends = {name: [tokenizer.strings(ids)[0], int(ids[0])] for name, ids in (("cls", first), ("sep", last))}
    edit(folder, "tokenizer.json", post_processor={"type": "BertProcessing", **ends})
    edit(folder, tokenizer_class="PreTrainedTokenizerFast")


def named_in_config(folder: Path) -> None:
    """The tokenizer's class in the model's configuration."""
    edit(folder, tokenizer_class=None)
    edit(folder, "config.json", tokenizer_class="PreTrainedTokenizerFast")


WORDPIECE, BYTES, ALL = ("uncased", "cased"), ("byte-level",), tuple(KINDS)
LEFT = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
SETTINGS: Mapping[str, tuple[tuple[str, ...], Callable[[Path], None]]] = {
    "as saved": (ALL, lambda folder: None),
    "case kept": (WORDPIECE, lambda folder: edit(folder, do_lower_case=False)),
    "case lowered": (WORDPIECE, lambda folder: edit(folder, do_lower_case=True)),
    "case unstated": (WORDPIECE, lambda folder: edit(folder, do_lower_case=None)),
    "accents stripped": (WORDPIECE, lambda folder: edit(folder, strip_accents=True)),
    "accents kept": (WORDPIECE, lambda folder: edit(folder, strip_accents=False)),
    "ideographs joined": (WORDPIECE, lambda folder: edit(folder, tokenize_chinese_chars=False)),
    "only for slow tokenizers": (WORDPIECE, lambda folder: edit(folder, do_basic_tokenize=False, never_split=["Boat"])),
    "prefix space": ((*BYTES, "unigram"), lambda folder: edit(folder, add_prefix_space=True)),
    "no prefix space": ((*BYTES, "unigram"), lambda folder: edit(folder, add_prefix_space=False)),
    "prefix space, modern": (("modern",), lambda folder: edit(folder, add_prefix_space=True)),
    "new tokens": (ALL, lambda folder: edit(folder, added_tokens_decoder=added(folder))),
    "new tokens in their old file": (ALL, in_added_tokens),
    "new special tokens": (ALL, lambda folder: edit(folder, extra_special_tokens=["<url>"])),
    "new special tokens, as called before": (ALL, lambda folder: edit(folder, additional_special_tokens=["<url>"])),
    "new special tokens in a file": (ALL, lambda folder: edit(folder, SPECIAL, additional_special_tokens=["<url>"])),
    "a mask that takes the space before it": (
        ALL,
        lambda folder: edit(folder, SPECIAL, mask_token=NEW | {"content": "Boat"}),
    ),
    "another first token": (ALL, lambda folder: edit(folder, cls_token="a", bos_token="a")),
    "another last token": (ALL, lambda folder: edit(folder, sep_token="b", eos_token="b")),
    "another unknown token": (WORDPIECE, lambda folder: edit(folder, unk_token="[PAD]")),
    "cut at the left": (ALL, lambda folder: edit(folder, truncation_side="left")),
    "cut at the left by tokenizer.json": (ALL, lambda folder: edit(folder, "tokenizer.json", truncation=LEFT)),
    "padded at the left": (ALL, lambda folder: edit(folder, padding_side="left")),
    "one segment": (ALL, lambda folder: edit(folder, model_input_names=["input_ids", "attention_mask"])),
    "an old frame without segments": (ALL, old_frame),
    "no frame": (ALL, lambda folder: edit(folder, "tokenizer.json", post_processor=None)),
    "frame switched off": (ALL, lambda folder: edit(folder, add_bos_token=False, add_eos_token=False)),
    "no class": (ALL, lambda folder: edit(folder, tokenizer_class=None)),
    "class with Fast": (
        (*WORDPIECE, *BYTES, "unigram"),
        lambda folder: edit(folder, tokenizer_class=KINDS[folder.name][2]["tokenizer_class"] + "Fast"),
    ),
    "no class of its own": (ALL, lambda folder: edit(folder, tokenizer_class="PreTrainedTokenizerFast")),
    "class of config.json": (ALL, named_in_config),
    "class of DistilBERT": (WORDPIECE, lambda folder: edit(folder, tokenizer_class="DistilBertTokenizer")),
    "class of ELECTRA": (WORDPIECE, lambda folder: edit(folder, tokenizer_class="ElectraTokenizerFast")),
    "no settings at all": (ALL, lambda folder: (folder / CONFIG).unlink()),
    "special tokens are text": (ALL, lambda folder: edit(folder, split_special_tokens=True)),
    "without tokenizer.json": ((*WORDPIECE, *BYTES), in_vocab_file),
    "legacy": (ALL, lambda folder: edit(folder, legacy=False, clean_up_tokenization_spaces=True)),
}  # fmt: skip
REFUSED = {  # what transformers reads no tokenizer.json says, or nothing stands before a text, which a classifier reads
    ("special tokens are text", kind): "which no tokenizer.json can express" for kind in ALL
} | {("no frame", "modern"): "puts no special token before the text"}


@pytest.fixture(scope="module")
def toys(tmp_path_factory) -> Path:
    """A checkpoint of each encoder with a tokenizer of each kind that it is used with."""
    root = tmp_path_factory.mktemp("toys")
    for kind, encoder in ENCODERS:
        folder = root / encoder / kind
        folder.mkdir(parents=True)
        n = save_tokenizer(kind, folder)
        family(encoder, vocab_size=n + SPARE).save_pretrained(folder)
    return root


def theirs(folder: Path) -> Callable:
    """What plain transformers makes of a text, or a pair."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    return lambda row: tokenizer(*row, truncation=True, max_length=LENGTH, return_tensors="pt")


def full_length(folder: Path) -> list[str]:
    """Texts of one token less than is read, of just as many, and of one more."""
    texts = ["a" + "." * n for n in range(LENGTH + 2)]
    lengths = TextTokenizer(folder, 2 * LENGTH).encode(texts).lengths.tolist()
    return [texts[lengths.index(n)] for n in range(LENGTH - 1, LENGTH + 2)]


@pytest.mark.parametrize(("kind", "encoder"), ENCODERS)
def test_probabilities_are_those_of_transformers(toys, tmp_path, kind, encoder):
    from transformers import AutoModelForSequenceClassification

    source = toys / encoder / kind
    plain = AutoModelForSequenceClassification.from_pretrained(source).eval()
    for pairs in (False, True):
        model = load_hf(source, len(LABELS), "linear", ())
        folder = tmp_path / f"model-{pairs}"
        save_model(
            model, Manifest(LABELS, pairs, LENGTH, "linear", (), ""), np.array([1], dtype=np.uint64), source, folder
        )
        texts = [*TEXTS, *full_length(folder), " ".join(SENTENCES)]
        rows = (
            [(one, other) for one, other in zip(texts, texts[::-1], strict=True)]
            if pairs
            else [(text,) for text in texts]
        )
        with torch.no_grad():
            wanted, again = (
                [plain(**tokenized).logits.softmax(dim=1)[0].numpy() for tokenized in map(theirs(at), rows)]
                for at in (source, folder)
            )
        for engine in ("auto", "torch"):
            answers = OpenedModel.from_pretrained(folder, backend=engine).answer(rows if pairs else texts, "full")
            assert np.allclose([answer.probabilities for answer in answers], wanted, atol=1e-4)
        assert np.array_equal(again, wanted)
        assert np.ptp(wanted, axis=0).max() > 0.05  # answers that were all alike would agree whatever is read


@pytest.mark.parametrize(("setting", "kind"), [(name, kind) for name, (kinds, _) in SETTINGS.items() for kind in kinds])
def test_ids_are_those_of_transformers_whatever_file_says_so(toys, tmp_path, kind, setting):
    source, target = Path(shutil.copytree(toys / FIRST[kind] / kind, tmp_path / kind)), tmp_path / "made"
    SETTINGS[setting][1](source)
    target.mkdir()
    shutil.copyfile(source / "config.json", target / "config.json")
    if (setting, kind) in REFUSED:
        with pytest.raises(UserError, match=REFUSED[setting, kind]) as caught:
            copy_tokenizer(source, target, LENGTH)
        assert str(caught.value).startswith(str(source)) and "\n" not in str(caught.value)
        return
    tokenizer = copy_tokenizer(source, target, LENGTH)
    texts = [*TEXTS, " ".join(SENTENCES)]
    asked, reloaded, reopened = theirs(source), theirs(target), TextTokenizer(target, LENGTH)
    for rows in ([(text,) for text in texts], list(zip(texts, texts[::-1], strict=True))):
        sides = [list(side) for side in zip(*rows, strict=True)]
        found, opened = tokenizer.encode(*sides).tokens, reopened.encode(*sides).tokens
        for row, mine, other in zip(rows, found, opened, strict=True):
            wanted, again = asked(row), reloaded(row)
            assert mine[:, 0].tolist() == wanted["input_ids"][0].tolist() == again["input_ids"][0].tolist()
            segments = wanted.get("token_type_ids", torch.zeros_like(wanted["input_ids"]))
            assert mine[:, 1].tolist() == segments[0].tolist()
            assert np.array_equal(mine, other)
