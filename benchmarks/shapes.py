"""Speed by text length and model size, beside ONNX Runtime and OpenVINO: random weights, random ids, full depth.

    python -m benchmarks.shapes [--layers 6 12] [--lengths 16 64 256 512] [--out results/shapes.jsonl]

All texts of a row have one length, so that no engine pads: the kernels alone are compared. Batches of one text and of
about 2,048 tokens. Rows have no accuracy: the weights are random.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from scripts.shared import RESULTS, Row, command, record
from ziggurat.bench import KINDS, PeerSetting, open_peers, padded
from ziggurat.data.tokenizer import Encoded, pack_rows
from ziggurat.encoder import Manifest
from ziggurat.engine import OpenedModel, run_batches
from ziggurat.measure import ModelOptions, interleave, paired_ratio
from ziggurat.policies import ExitRule

SHAPES = {6: (384, 12, 1536), 12: (768, 12, 3072)}  # layers → hidden, heads, intermediate: MiniLM-L6, BERT-base
VOCABULARY, CLASSES = 30522, 4
TOKENS = 2048  # of a large batch
PEERS = ("ONNX Runtime", "OpenVINO")


@command("shapes")
def main(arguments: list[str] | None = None) -> None:
    """Appends a row for each engine, model, length and batch, as soon as it is measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 64, 256, 512])
    parser.add_argument("--threads", type=int, help="default: all cores")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS / "shapes.jsonl", help="file of rows to append to")
    options = parser.parse_args(arguments)
    for layers in options.layers:
        record(options.out, measured(layers, options))


def measured(layers: int, options: argparse.Namespace) -> Iterator[Row]:
    """Rows of one model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = random_model(Path(scratch) / "model", layers)
        draws = np.random.default_rng(0)
        opened = {
            f"ziggurat {dtype}": ModelOptions("cpu", dtype, options.threads, backend="native").open(str(folder))
            for dtype in ("float32", "int8")
        }
        first = next(iter(opened.values()))
        setting = PeerSetting(
            folder,
            first.spec,
            first.problem.head,
            first.backend.threads,
            Path(scratch),
            [random_text(draws, n) for n in (16, 64, 128) * 10],
        )
        wanted = [kind for kind in KINDS if kind.name in PEERS and kind.dtype != "bfloat16"]
        peers, left_out = open_peers(wanted, setting)
        for peer in left_out:
            sys.stderr.write(f"left out: {peer.name} {peer.dtype}: {peer.reason}\n")
        single = {f"{peer.name} {peer.dtype}": peer for peer in peers if peer.streams == 1}
        for length in options.lengths:
            for batch in (1, max(2, TOKENS // length)):
                texts = [random_text(draws, length) for _ in range(batch)]
                calls = {name: engine_call(classifier, texts) for name, classifier in opened.items()}
                calls |= {name: partial(peer.logits, padded(texts)) for name, peer in single.items()}
                timings = interleave(calls, options.rounds, warmup=3)
                for name, timing in timings.items():
                    gain = paired_ratio(timings["OpenVINO int8"], timing) if "OpenVINO int8" in timings else None
                    yield {
                        "what": name.rpartition(" ")[0], "dtype": name.rpartition(" ")[2], "layers": layers,
                        "hidden": first.spec.hidden, "length": length, "batch": batch,
                        "threads": first.backend.threads, "milliseconds_p50": 1e3 * timing.p50,
                        "texts_per_second_p50": batch / timing.p50,
                        "over_openvino_int8": None if gain is None else [gain.median, gain.low, gain.high],
                    }  # fmt: skip


def engine_call(classifier: OpenedModel, texts: Sequence[np.ndarray]) -> Callable[[], np.ndarray]:
    """A call that answers these texts as one batch."""
    encoded = Encoded(list(texts), np.zeros(len(texts), dtype=bool))
    rows, rule = np.arange(len(texts)), ExitRule.full_depth(1)
    return lambda: run_batches(classifier.backend, [pack_rows(encoded, rows)], rule, len(texts)).readings


def random_text(draws: np.random.Generator, length: int) -> np.ndarray:
    """Token and segment ids (length, 2)."""
    return np.stack([draws.integers(1000, VOCABULARY, length), np.zeros(length, dtype=np.int64)], axis=1)


def random_model(folder: Path, layers: int, family: str = "Bert") -> Path:
    """A model folder without exits, weights as they start; `family` as transformers' classes begin."""
    import torch
    import transformers

    from ziggurat.encoder import load_hf, save_model

    hidden, heads, intermediate = SHAPES[layers]
    torch.manual_seed(0)
    inner = "hidden_dim" if family == "DistilBert" else "intermediate_size"
    config = getattr(transformers, f"{family}Config")(
        vocab_size=VOCABULARY,
        max_position_embeddings=512 + 2,  # the Roberta families use two of them for nothing
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        **{inner: intermediate},
        id2label={label: str(label) for label in range(CLASSES)},
    )
    checkpoint = folder.with_name("checkpoint")
    getattr(transformers, f"{family}ForSequenceClassification")(config).save_pretrained(checkpoint)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "word"]  # one that is not special: none would be refused
    words = {piece: index for index, piece in enumerate(pieces)}
    transformers.BertTokenizer(vocab=words, model_max_length=512).save_pretrained(checkpoint)
    model = load_hf(checkpoint, CLASSES, "fastbert", ())
    manifest = Manifest(tuple(range(CLASSES)), False, 512, "fastbert", (), "")
    save_model(model, manifest, np.array([1], dtype=np.uint64), checkpoint, folder)
    return folder


if __name__ == "__main__":
    main()
