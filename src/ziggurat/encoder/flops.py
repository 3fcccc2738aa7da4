"""FLOPs and bit operations of an encoder and its heads, from its spec and token counts.

All figures of Ziggurat use one convention: 2 x multiply-adds of matrix products, for real tokens only (special tokens
included, padding never). Attention products, exit heads and the final classifier count. Embeddings are free, except
for the linear map that widens some. Elementwise work (softmax, LayerNorm, GELU, the entropy of an exit, the column sums
of a pruning score) has no matrix product and does not count. `ziggurat.analyses.conventions` has those of other papers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.spec import EncoderSpec

# Token count of one input, or an array for many inputs (any shape); results have the same form.
Tokens = TypeVar("Tokens", int, np.ndarray)

FASTBERT_WIDTH = 128  # of FastBERT's head, for every encoder width
SPAN_HEAD = "span"  # the only kind of head that answers for every token
FINAL = "pooler"  # kind of the final classifier's head
FLOAT_BITS = 16  # of weights and activations that are not quantised, and in the baseline of LTP's relative BOPs


def layer_flops(spec: EncoderSpec, n_before: Tokens, n_after: Tokens | None = None, layer: int = 1) -> Tokens:
    """FLOPs of encoder layer 1 … L: 2 (2 d n_before² + 4 d² n_before + 2 d m n_after), m = the spec's `intermediate`.

    `n_before` tokens enter attention and its four projections, `n_after` (default: all) the feed-forward layer. This
    is LTP's accounting (source: its code, where `8 d²` is `2 d m` at m = 4 d), so figures can be compared. A runner
    that prunes before the output projection computes slightly less.
    A layer with a window has `pairs_seen` in place of n_before²; a gated feed-forward layer has 3 d m instead of 2 d m.
    """
    before = _wide(n_before)
    return 4 * spec.hidden * pairs_seen(before, spec.window(layer)) + linear_flops(spec, before, n_after)


def pairs_seen(n_tokens: Tokens, window: int) -> Tokens:
    """Number of (query, key) pairs that attention multiplies: n², or n (2 w + 1) - w (w + 1) with a window.

    This assumes consecutive tokens. Pruning leaves gaps, so windows then hold fewer tokens and this is an upper bound:
    a trace does not record which tokens remain.
    """
    n: Any = n_tokens
    reach = np.minimum(n, window) if window else n
    pairs = n * (2 * reach + 1) - reach * (reach + 1)
    counted: Any = pairs if isinstance(n, np.ndarray) else int(pairs)
    return counted


def linear_flops(spec: EncoderSpec, n_before: Tokens, n_after: Tokens | None = None) -> Tokens:
    """The part of `layer_flops` that INT8 makes cheaper, the linear maps: 2 (4 d² n_before + 2 d m n_after).

    A gated feed-forward layer has three maps instead of two: 3 d m.
    """
    before = _wide(n_before)
    after = before if n_after is None else _wide(n_after)
    maps = 3 if spec.gated else 2
    return 8 * spec.hidden**2 * before + 2 * maps * spec.hidden * spec.intermediate * after


def embedding_flops(spec: EncoderSpec, n_tokens: Tokens) -> Tokens:
    """FLOPs of the linear map that widens embeddings: 2 e d n, 0 where the architecture has none."""
    return 2 * spec.embedding_width * spec.hidden * _wide(n_tokens)


def bit_operations(flops: Tokens, weight_bits: int, activation_bits: int) -> Tokens:
    """BOPs of `flops`: multiply-adds x bits of the weights x bits of the activations (LTP section 4.6).

    So INT8 costs a quarter of FP16. In a product of two activations, both have the activations' bits.
    """
    return flops // 2 * weight_bits * activation_bits


def head_flops(kind: str, spec: EncoderSpec, n_tokens: Tokens, n_classes: int) -> Tokens:
    """FLOPs of one exit head (or the final classifier) that sees `n_tokens` live tokens.

    `kind` is a key of `HEADS`; ValueError for another one.
    """
    if kind not in HEADS:
        raise ValueError(f"unknown kind of head {kind!r}; known: {', '.join(HEADS)}")
    return 2 * HEADS[kind](spec, _wide(n_tokens), n_classes)


def head_token_flops(kind: str, spec: EncoderSpec, n_tokens: Tokens) -> Tokens:
    """The part of `head_flops` that INT8 makes cheaper: maps applied to every token, which only FastBERT's head has."""
    w = FASTBERT_WIDTH
    return 2 * (spec.hidden * w + 2 * w * w if kind == "fastbert" else 0) * _wide(n_tokens)


def path_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: Sequence[int],
    heads_at: Sequence[int],
    final: bool,
    remaining: Sequence[int] | None = None,
) -> int:
    """FLOPs of one answer, from the layers and heads that its input passed.

    `tokens` counts the tokens that enter each layer that ran, `remaining` the tokens after it (default: no pruning).
    `heads_at` lists the layers (1 … len(tokens)) after which an exit head of `kind` was computed, the answering one
    included. `final`: the model's own classifier was computed. ValueError if `tokens` and `remaining` differ in length.
    """
    remaining = tokens if remaining is None else remaining
    ways = zip(tokens, remaining, strict=True)
    layers = sum(layer_flops(spec, *way, layer) for layer, way in enumerate(ways, start=1))
    layers += embedding_flops(spec, tokens[0]) if tokens else 0
    heads = sum(head_flops(kind, spec, remaining[layer - 1], n_classes) for layer in heads_at)
    return layers + heads + (head_flops(FINAL, spec, remaining[-1], n_classes) if final else 0)


def path_bops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: Sequence[int],
    heads_at: Sequence[int],
    final: bool,
    remaining: Sequence[int] | None = None,
    layer_bits: int = 8,
) -> int:
    """Bit operations of one answer; arguments as in `path_flops`.

    `layer_bits` is the width of weights and activations in the layers' linear maps and in those maps of a head that
    see every token (`encoder.torch.int8`). The products inside attention, the rest of the heads and the classifier cost
    `FLOAT_BITS`, so an INT8 model costs a little more than a quarter of the FP16 model. LTP counts everything at 8 bits
    (`ziggurat.analyses.conventions.ltp_bops`).
    """
    remaining = tokens if remaining is None else remaining
    linear = sum(linear_flops(spec, before, after) for before, after in zip(tokens, remaining, strict=True))
    linear += sum(head_token_flops(kind, spec, remaining[layer - 1]) for layer in heads_at)
    rest = path_flops(spec, kind, n_classes, tokens, heads_at, final, remaining) - linear
    return bit_operations(linear, layer_bits, layer_bits) + bit_operations(rest, FLOAT_BITS, FLOAT_BITS)


def full_flops(spec: EncoderSpec, n_classes: int, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of the full model without exits and pruning, the baseline of every speed-up: `lengths` (n) → (n) int64."""
    layers = sum(layer_flops(spec, lengths, layer=layer) for layer in range(1, spec.layers + 1))
    return embedding_flops(spec, lengths) + layers + head_flops(FINAL, spec, lengths, n_classes)


def rung_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: np.ndarray,
    rung_layers: Sequence[int],
    computed: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of exiting at each rung: (n, n_rungs) int64.

    `tokens` are lengths (n) without pruning. With pruning they are (n, L + 1): tokens that enter layer 1, then tokens
    that remain after each layer (0 after the rung that answered; costs of later rungs are then meaningless). `guessed`
    (one per layer): pruning scores are predicted there, at one dot product for each token that enters the layer.
    `computed` (one per rung; the last may be omitted): inputs that pass the rung compute its head. The cost of exiting
    at a rung always includes that rung's head, so all False gives the cost of going straight to each rung. ValueError
    unless `rung_layers` rises to the spec's last layer.
    """
    layers = list(rung_layers)
    if not layers or layers[-1] != spec.layers or any(after <= before for before, after in pairwise([0, *layers])):
        raise ValueError(f"rung_layers must rise from 1 or more to {spec.layers}, not {list(rung_layers)}")
    if len(computed) not in (len(layers) - 1, len(layers)):
        raise ValueError(f"computed has {len(computed)} entries for {len(layers)} rungs")
    remaining = np.broadcast_to(tokens[:, None], (len(tokens), spec.layers + 1)) if tokens.ndim == 1 else tokens
    head = head_flops(kind, spec, remaining[:, layers[:-1]], n_classes)
    flops: np.ndarray = (
        embedding_flops(spec, remaining[:, :1])
        + passed_flops(spec, remaining, guessed)[:, [layer - 1 for layer in layers]]
    )
    passed_heads = head * np.asarray(computed[: len(layers) - 1], dtype=np.int64)
    flops[:, 1:] += passed_heads.cumsum(axis=1)
    flops[:, :-1] += head
    flops[:, -1] += head_flops(FINAL, spec, remaining[:, -1], n_classes)
    return flops


def answer_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    lengths: np.ndarray,
    remaining: np.ndarray,
    rung_layers: Sequence[int],
    computed: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of exiting at each rung, for any kind of head: (n, n_rungs) int64; arguments as in `rung_flops`.

    `lengths` (n) are token counts before any pruning.
    """
    if kind == SPAN_HEAD:
        return span_rung_flops(spec, lengths, remaining, rung_layers, computed, guessed)
    return rung_flops(spec, kind, n_classes, remaining, rung_layers, computed, guessed)


def whole_flops(spec: EncoderSpec, kind: str, n_classes: int, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of the full model without exits and pruning, for any kind of head: lengths (n) → (n) int64."""
    return span_full_flops(spec, lengths) if kind == SPAN_HEAD else full_flops(spec, n_classes, lengths)


def guess_flops(spec: EncoderSpec, n_tokens: Tokens) -> Tokens:
    """FLOPs of predicting the pruning scores of `n_tokens` tokens: one dot product per token."""
    return 2 * spec.hidden * _wide(n_tokens)


def passed_flops(spec: EncoderSpec, remaining: np.ndarray, guessed: Sequence[bool] | None = None) -> np.ndarray:
    """FLOPs of layers 1 … l for each l, without embeddings and heads: (n, L + 1), arguments as above → (n, L)."""
    per_layer = _each_layer(spec, remaining[:, :-1], remaining[:, 1:])
    if guessed is not None:
        per_layer = per_layer + guess_flops(spec, remaining[:, :-1]) * np.asarray(guessed)
    return per_layer.cumsum(axis=1)


def _each_layer(spec: EncoderSpec, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`layer_flops` of layers 1 … L: tokens (n, L) before and after → (n, L)."""
    if not spec.windows:  # all layers have the same cost
        return layer_flops(spec, before, after)
    ways = zip(before.T, after.T, strict=True)
    return np.stack([layer_flops(spec, *way, layer) for layer, way in enumerate(ways, start=1)], axis=1)


def _wide(n: Tokens) -> Tokens:
    """Converts to int64 or int: the int32 of tokenizers would overflow in squares of token counts times widths."""
    return n.astype(np.int64) if isinstance(n, np.ndarray) else int(n)


def _fastbert(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → 128, keys and values for every token; query, attention and the rest for the first token only.

    This is what `encoder.torch.heads` computes. FastBERT as published also computes the queries and attention of all
    other tokens, whose results are never used (`ziggurat.analyses.conventions`).
    """
    w = FASTBERT_WIDTH
    return (spec.hidden * w + 2 * w * w + 2 * w) * n + 3 * w * w + w * n_classes


def _pooler(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → d → N on the first token."""
    return spec.hidden * (spec.hidden + n_classes) + 0 * n


def _linear(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → N on the first token."""
    return spec.hidden * n_classes + 0 * n


# A new head adds its MACs here: (spec, live tokens, classes) → the same form as the tokens.
HEADS: Mapping[str, Callable[[EncoderSpec, Any, int], Any]] = {
    "fastbert": _fastbert,
    "pooler": _pooler,
    "linear": _linear,
}


def span_head_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of one exit's span head, d → 2 for every token: lengths (n) → (n) int64."""
    return 4 * spec.hidden * lengths.astype(np.int64)


def span_full_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of the full span model without exits and pruning: lengths (n) → (n) int64."""
    remaining = np.repeat(lengths[:, None], spec.layers + 1, axis=1)
    return span_rung_flops(spec, lengths, remaining, (spec.layers,), ())[:, 0]


def span_rung_flops(
    spec: EncoderSpec,
    lengths: np.ndarray,
    remaining: np.ndarray,
    rung_layers: Sequence[int],
    computed: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of exiting at each rung of a span model: (n, n_rungs) int64.

    `lengths` (n) are before any pruning; `remaining` (n, L + 1), `computed` and `guessed` as in `rung_flops`. Tokens
    that are dropped before layer 1 are still embedded. The last rung's head has an extra map d → d if the architecture
    has one.
    """
    layers = passed_flops(spec, remaining, guessed)[:, np.asarray(rung_layers) - 1]
    passed = np.concatenate([[0], np.cumsum(computed[: len(rung_layers) - 1], dtype=np.int64)])
    heads = span_head_flops(spec, lengths)[:, None] * (passed + 1)
    flops: np.ndarray = embedding_flops(spec, lengths)[:, None] + layers + heads
    if ARCHITECTURES[spec.model_type].dense_spans:
        flops[:, -1] += 2 * spec.hidden**2 * lengths.astype(np.int64)
    return flops
