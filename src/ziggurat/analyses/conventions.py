"""Cost conventions of other papers, by name: the figures that they would print for the same run.

Speed-ups of papers that count differently cannot be compared. Each convention turns a `Route` into that paper's cost.
A speed-up is the full model's cost divided by the route's, each summed over inputs. `tests/unit/encoder/test_flops.py`
reproduces printed figures to the digit. Ziggurat's convention is in `ziggurat.encoder.flops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ziggurat.encoder.flops import FASTBERT_WIDTH, bit_operations, layer_flops, path_flops
from ziggurat.encoder.spec import EncoderSpec

TR_BERT_SELECTOR_WIDTH = 32  # hidden width of TR-BERT's token selector


@dataclass(frozen=True)
class Route:
    """The path of one input through a model: everything that a convention needs."""

    tokens: tuple[int, ...]  # real tokens that enter each layer that ran
    n_classes: int
    remaining: tuple[int, ...] | None = None  # tokens that left each layer; None = no pruning
    heads_at: tuple[int, ...] = ()  # layers, 1 … L, after which an exit head was computed
    final: bool = True  # the model's own classifier was computed
    kind: str = "fastbert"  # of the exit heads
    padded_to: int | None = (
        None  # what a system that pads makes of every layer's tokens; None = `tokens` are its lengths
    )
    selectors_at: tuple[int, ...] = ()  # layers, 1 … L, before which a TR-BERT selector ran

    @property
    def padded(self) -> tuple[int, ...]:
        """Tokens per layer in a system with padding."""
        return self.tokens if self.padded_to is None else (self.padded_to,) * len(self.tokens)


def ziggurat_flops(spec: EncoderSpec, route: Route) -> int:
    """Ziggurat's convention: 2 x MAC, real tokens, attention products, heads and classifier."""
    return path_flops(
        spec, route.kind, route.n_classes, route.tokens, route.heads_at, final=route.final, remaining=route.remaining
    )


def ltp(spec: EncoderSpec, route: Route) -> int:
    """LTP and Magic Pyramid: 2 x MAC, real tokens, attention products, no heads and no classifier."""
    remaining = route.tokens if route.remaining is None else route.remaining
    return sum(layer_flops(spec, before, after) for before, after in zip(route.tokens, remaining, strict=True))


def ltp_bops(spec: EncoderSpec, route: Route, bits: int) -> int:
    """LTP Figure 4.4: its FLOPs as bit operations, everything (also attention products) at `bits` bits.

    LTP's relative BOPs are this at 8 bits divided by the unpruned model's at 16. Ziggurat's are
    `ziggurat.encoder.flops.path_bops`.
    """
    return bit_operations(ltp(spec, route), bits, bits)


def fastbert(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's paper and README: 2 x MAC of linear maps only, padded, heads charged without their last 128 → N map.

    Its final classifier is a head too, so `final` adds one head.
    """
    return 2 * _fastbert_macs(spec, route, last_map=0)


def fastbert_macs(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's code with a newer thop: MAC where the paper has 2 x MAC, and the heads' 128 → N map is counted."""
    return _fastbert_macs(spec, route, last_map=FASTBERT_WIDTH * route.n_classes)


def lat(spec: EncoderSpec, route: Route) -> int:
    """Length-Adaptive Transformer and Dynamic-TinyBERT: MAC (called FLOPs), padded, attention products, no heads.

    A length configuration of these papers is a route with its lengths as `tokens` and `remaining`, without `padded_to`.
    """
    remaining = route.padded if route.remaining is None or route.padded_to is not None else route.remaining
    return sum(layer_flops(spec, before, after) for before, after in zip(route.padded, remaining, strict=True)) // 2


def tr_bert(spec: EncoderSpec, route: Route) -> int:
    """TR-BERT: per layer a table entry (MAC, attention products), selectors n (32 d + 32), the d → N classifier."""
    layers = sum(layer_flops(spec, n) for n in route.tokens) // 2
    selectors = (
        sum(route.tokens[layer - 1] for layer in route.selectors_at) * TR_BERT_SELECTOR_WIDTH * (spec.hidden + 1)
    )
    return layers + selectors + (spec.hidden * route.n_classes if route.final else 0)


def layers(spec: EncoderSpec, route: Route) -> int:
    """DeeBERT, BERxiT, PABEE and CascadeBERT: executed layers, independent of their width and the input's length."""
    return len(route.tokens)


CONVENTIONS: Mapping[str, Callable[[EncoderSpec, Route], int]] = {
    "ours": ziggurat_flops,
    "ltp": ltp,
    "fastbert": fastbert,
    "fastbert_macs": fastbert_macs,
    "lat": lat,
    "tr_bert": tr_bert,
    "layers": layers,
}


def _fastbert_macs(spec: EncoderSpec, route: Route, last_map: int) -> int:
    d, w = spec.hidden, FASTBERT_WIDTH
    n_heads = len(route.heads_at) + int(route.final)
    longest = route.padded[0]  # FastBERT prunes no token: every layer and head sees the same length
    layer = (4 * d * d + 2 * d * spec.intermediate) * longest
    head = (d * w + 4 * w * w) * longest + w * w + last_map
    return layer * len(route.tokens) + head * n_heads
