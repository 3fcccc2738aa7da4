"""FLOPs and bit operations of an encoder and its heads, from its spec and token counts.

One convention for everything that Ziggurat prints: 2 x multiply-adds of the matrix products, real tokens only (special
tokens included, padding never), attention products counted, exit heads and the final classifier counted, embeddings
free but for the linear map that widens some. Elementwise work (softmax, LayerNorm, GELU, the entropy of an exit, the
column sums of a pruning score) holds no matrix product and is not counted. The conventions of other papers are in
`ziggurat.analyses.conventions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from ziggurat.encoder.architectures import ARCHITECTURES
from ziggurat.encoder.spec import EncoderSpec

# One input's count, or many inputs' (any shape): the answer has the same form.
Tokens = TypeVar("Tokens", int, np.ndarray)

FASTBERT_WIDTH = 128  # of FastBERT's head, whatever the encoder's width
SPAN_HEAD = "span"  # the one kind of head that answers for every token
FINAL = "pooler"  # the kind of head that a fine-tuned checkpoint ends with
FLOAT_BITS = 16  # of weights and activations in what is not quantised, and in the baseline of LTP's relative BOPs


def layer_flops(spec: EncoderSpec, n_before: Tokens, n_after: Tokens | None = None, layer: int = 1) -> Tokens:
    """FLOPs of encoder layer 1 … L: 2 (2 d n_before² + 4 d² n_before + 2 d m n_after), m = the spec's `intermediate`.

    `n_before` tokens take part in attention and its four projections, `n_after` (default: all) are left for the
    feed-forward layer: the accounting of LTP, so that figures compare, although a runner that prunes before the output
    projection does slightly less. Source: LTP's code; its `8 d²` is `2 d m` at m = 4 d.
    A layer with a window has `pairs_seen` in place of n_before², a gated feed-forward layer 3 in place of 2 d m.
    """
    before = _wide(n_before)
    return 4 * spec.hidden * pairs_seen(before, spec.window(layer)) + linear_flops(spec, before, n_after)


def pairs_seen(n_tokens: Tokens, window: int) -> Tokens:
    """How many pairs of a query and a key it sees attention multiplies: n², or n (2 w + 1) - w (w + 1) with a window.

    Of tokens side by side. Where pruning has left gaps they see less, so that this is the most that it can be: which
    tokens are left is no part of an answer's trace.
    """
    n: Any = n_tokens
    reach = np.minimum(n, window) if window else n
    pairs = n * (2 * reach + 1) - reach * (reach + 1)
    return pairs if isinstance(n, np.ndarray) else int(pairs)


def linear_flops(spec: EncoderSpec, n_before: Tokens, n_after: Tokens | None = None) -> Tokens:
    """The part of `layer_flops` that INT8 makes cheaper, its linear maps: 2 (4 d² n_before + 2 d m n_after).

    A gated feed-forward layer has three maps and not two between its widths: 3 d m.
    """
    before = _wide(n_before)
    after = before if n_after is None else _wide(n_after)
    maps = 3 if spec.gated else 2
    return 8 * spec.hidden**2 * before + 2 * maps * spec.hidden * spec.intermediate * after


def embedding_flops(spec: EncoderSpec, n_tokens: Tokens) -> Tokens:
    """FLOPs of the linear map that widens embeddings: 2 e d n, 0 where the architecture has none."""
    return 2 * spec.embedding_width * spec.hidden * _wide(n_tokens)


def bit_operations(flops: Tokens, weight_bits: int, activation_bits: int) -> Tokens:
    """BOPs of this many FLOPs: multiply-adds x bits of the weights x bits of the activations (LTP section 4.6).

    INT8 is thereby a quarter of FP16. In a product of two activations both sides are as wide as these.
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
    """The part of `head_flops` that INT8 makes cheaper: the maps that see every token, which FastBERT's head has."""
    w = FASTBERT_WIDTH
    return 2 * (spec.hidden * w + 2 * w * w if kind == "fastbert" else 0) * _wide(n_tokens)


def path_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: Sequence[int],
    heads_at: Sequence[int],
    final: bool,
    kept: Sequence[int] | None = None,
) -> int:
    """FLOPs of one answer, from the way that its input took.

    `tokens` are those that entered each layer that ran; `kept` those that left it (default: the same, no pruning).
    `heads_at` are the layers (1 … len(tokens)) behind which an exit head of `kind` was computed, the answering one
    included; `final` says that the model's own classifier was. ValueError if `tokens` and `kept` differ in length.
    """
    kept = tokens if kept is None else kept
    ways = zip(tokens, kept, strict=True)
    layers = sum(layer_flops(spec, *way, layer) for layer, way in enumerate(ways, start=1))
    layers += embedding_flops(spec, tokens[0]) if tokens else 0
    heads = sum(head_flops(kind, spec, kept[layer - 1], n_classes) for layer in heads_at)
    return layers + heads + (head_flops(FINAL, spec, kept[-1], n_classes) if final else 0)


def path_bops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: Sequence[int],
    heads_at: Sequence[int],
    final: bool,
    kept: Sequence[int] | None = None,
    layer_bits: int = 8,
) -> int:
    """Bit operations of one answer, from the same description of its way as in `path_flops`.

    `layer_bits` is the width of the layers' linear maps and of a head's that see every token, weights and activations
    alike (`encoder.torch.int8`). The products inside attention, the rest of the heads and the classifier are charged at
    `FLOAT_BITS`, so a model in INT8 costs a little more than a quarter of its FP16 self; LTP charges everything at 8
    (`ziggurat.analyses.conventions.ltp_bops`).
    """
    left = tokens if kept is None else kept
    linear = sum(linear_flops(spec, before, after) for before, after in zip(tokens, left, strict=True))
    linear += sum(head_token_flops(kind, spec, left[layer - 1]) for layer in heads_at)
    others = path_flops(spec, kind, n_classes, tokens, heads_at, final, kept) - linear
    return bit_operations(linear, layer_bits, layer_bits) + bit_operations(others, FLOAT_BITS, FLOAT_BITS)


def full_flops(spec: EncoderSpec, n_classes: int, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of the whole model without exits, the unit of every speed-up: `lengths` (n) → (n) int64."""
    layers = sum(layer_flops(spec, lengths, layer=layer) for layer in range(1, spec.layers + 1))
    return embedding_flops(spec, lengths) + layers + head_flops(FINAL, spec, lengths, n_classes)


def rung_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    tokens: np.ndarray,
    rung_layers: Sequence[int],
    asked: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of leaving at each rung: (n, n_rungs) int64.

    `tokens` are lengths (n) where nothing is pruned, else (n, L + 1): tokens that entered layer 1, then those that each
    layer left (0 behind the rung that answered, whose entries mean nothing). `guessed` says for each layer whether
    pruning scores were predicted there, which costs a dot product per token that enters it.
    `asked` says for each rung (the last one's entry may be left out) whether inputs that pass it compute its head. A
    rung's own cost holds its own head in any case, for without it there is no answer: all False gives the cost of going
    straight to a rung. ValueError unless `rung_layers` rises to the spec's last layer.
    """
    layers = list(rung_layers)
    if not layers or layers[-1] != spec.layers or any(after <= before for before, after in pairwise([0, *layers])):
        raise ValueError(f"rung_layers must rise from 1 or more to {spec.layers}, not {list(rung_layers)}")
    if len(asked) not in (len(layers) - 1, len(layers)):
        raise ValueError(f"asked has {len(asked)} entries for {len(layers)} rungs")
    kept = np.broadcast_to(tokens[:, None], (len(tokens), spec.layers + 1)) if tokens.ndim == 1 else tokens
    head = head_flops(kind, spec, kept[:, layers[:-1]], n_classes)
    flops: np.ndarray = (
        embedding_flops(spec, kept[:, :1]) + passed_flops(spec, kept, guessed)[:, [layer - 1 for layer in layers]]
    )
    flops[:, 1:] += (head * np.asarray(asked[: len(layers) - 1], dtype=np.int64)).cumsum(axis=1)  # passed on the way
    flops[:, :-1] += head
    flops[:, -1] += head_flops(FINAL, spec, kept[:, -1], n_classes)
    return flops


def answer_flops(
    spec: EncoderSpec,
    kind: str,
    n_classes: int,
    lengths: np.ndarray,
    kept: np.ndarray,
    rung_layers: Sequence[int],
    asked: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of leaving at each rung, whatever kind of head it has: (n, n_rungs) int64; arguments as `rung_flops`.

    `lengths` (n) are before any pruning.
    """
    if kind == SPAN_HEAD:
        return span_rung_flops(spec, lengths, kept, rung_layers, asked, guessed)
    return rung_flops(spec, kind, n_classes, kept, rung_layers, asked, guessed)


def whole_flops(spec: EncoderSpec, kind: str, n_classes: int, lengths: np.ndarray) -> np.ndarray:
    """FLOPs of the whole model without exits and pruning, whatever kind of head it has: lengths (n) → (n) int64."""
    return span_full_flops(spec, lengths) if kind == SPAN_HEAD else full_flops(spec, n_classes, lengths)


def guess_flops(spec: EncoderSpec, n_tokens: Tokens) -> Tokens:
    """FLOPs of predicting the pruning scores of so many tokens: a dot product for each."""
    return 2 * spec.hidden * _wide(n_tokens)


def passed_flops(spec: EncoderSpec, kept: np.ndarray, guessed: Sequence[bool] | None = None) -> np.ndarray:
    """FLOPs of layers 1 to each, nothing before and after them: kept (n, L + 1) and `guessed` as above → (n, L)."""
    per_layer = _each_layer(spec, kept[:, :-1], kept[:, 1:])
    if guessed is not None:
        per_layer = per_layer + guess_flops(spec, kept[:, :-1]) * np.asarray(guessed)
    return per_layer.cumsum(axis=1)


def _each_layer(spec: EncoderSpec, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """`layer_flops` of layers 1 … L: tokens (n, L) before and after → (n, L)."""
    if not spec.windows:  # then all cost alike
        return layer_flops(spec, before, after)
    ways = zip(before.T, after.T, strict=True)
    return np.stack([layer_flops(spec, *way, layer) for layer, way in enumerate(ways, start=1)], axis=1)


def _wide(n: Tokens) -> Tokens:
    """int64 or int: squares of token counts times widths do not fit in the int32 that tokenizers hand out."""
    return n.astype(np.int64) if isinstance(n, np.ndarray) else int(n)


def _fastbert(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → 128, keys and values on every token; query, attention and the rest for the first token alone.

    What `encoder.torch.heads` computes; FastBERT as published also maps and attends with every other token's query,
    which nothing reads (`ziggurat.analyses.conventions`).
    """
    w = FASTBERT_WIDTH
    return (spec.hidden * w + 2 * w * w + 2 * w) * n + 3 * w * w + w * n_classes


def _pooler(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → d → N on the first token."""
    return spec.hidden * (spec.hidden + n_classes) + 0 * n


def _linear(spec: EncoderSpec, n: Any, n_classes: int) -> Any:
    """MACs: d → N on the first token."""
    return spec.hidden * n_classes + 0 * n


# A new head adds its MACs here: (spec, live tokens, classes) → same form as the tokens.
HEADS: Mapping[str, Callable[[EncoderSpec, Any, int], Any]] = {
    "fastbert": _fastbert,
    "pooler": _pooler,
    "linear": _linear,
}


def span_head_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of one exit's span head, d → 2 on every token: lengths (n) → (n) int64."""
    return 4 * spec.hidden * lengths.astype(np.int64)


def span_full_flops(spec: EncoderSpec, lengths: np.ndarray) -> np.ndarray:
    """Of the whole model without exits and pruning: lengths (n) → (n) int64."""
    kept = np.repeat(lengths[:, None], spec.layers + 1, axis=1)
    return span_rung_flops(spec, lengths, kept, (spec.layers,), ())[:, 0]


def span_rung_flops(
    spec: EncoderSpec,
    lengths: np.ndarray,
    kept: np.ndarray,
    rung_layers: Sequence[int],
    asked: Sequence[bool],
    guessed: Sequence[bool] | None = None,
) -> np.ndarray:
    """FLOPs of leaving at each rung: (n, n_rungs) int64.

    `lengths` (n) before any pruning, `kept` (n, L + 1), `asked` and `guessed` as in `flops.rung_flops`. Tokens that are
    not read are embedded none the less. The last rung's head maps d → d before where the architecture's own does.
    """
    layers = passed_flops(spec, kept, guessed)[:, np.asarray(rung_layers) - 1]
    passed = np.concatenate([[0], np.cumsum(asked[: len(rung_layers) - 1], dtype=np.int64)])
    heads = span_head_flops(spec, lengths)[:, None] * (passed + 1)
    flops: np.ndarray = embedding_flops(spec, lengths)[:, None] + layers + heads
    if ARCHITECTURES[spec.model_type].dense_spans:
        flops[:, -1] += 2 * spec.hidden**2 * lengths.astype(np.int64)
    return flops
