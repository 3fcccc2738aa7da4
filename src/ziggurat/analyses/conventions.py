"""Cost conventions of other papers, by name.

Speed-ups of papers that count cost differently are not comparable. Each convention maps a `Route` to that paper's cost.
A speed-up in its unit is the full model's cost over the routes' costs, summed over inputs. Tests reproduce the papers'
figures to the digit (`tests/unit/encoder/test_flops.py`). Ziggurat's convention is in `ziggurat.encoder.flops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ziggurat.encoder.flops import FASTBERT_WIDTH, bit_operations, layer_flops, path_flops
from ziggurat.encoder.spec import EncoderSpec

TR_BERT_SELECTOR_WIDTH = 32  # hidden width of TR-BERT's token selector


@dataclass(frozen=True)
class Route:
    """The path of one input through a model, with all that the conventions need."""

    tokens: tuple[int, ...]  # real tokens that entered each layer that ran
    n_classes: int
    remaining: tuple[int, ...] | None = None  # tokens after each layer; None = no pruning
    heads_at: tuple[int, ...] = ()  # layers, 1 … L, after which an exit head was computed
    final: bool = True  # the model's own classifier was computed
    kind: str = "fastbert"  # of the exit heads
    padded_to: int | None = None  # tokens per layer in a system that pads; None = `tokens`
    selectors_at: tuple[int, ...] = ()  # layers, 1 … L, before which a TR-BERT selector ran

    @property
    def padded(self) -> tuple[int, ...]:
        """Tokens per layer in a system that pads."""
        return self.tokens if self.padded_to is None else (self.padded_to,) * len(self.tokens)


def ziggurat(spec: EncoderSpec, route: Route) -> int:
    """Ziggurat's own: 2 x MAC, real tokens, attention products, heads and classifier."""
    return path_flops(
        spec, route.kind, route.n_classes, route.tokens, route.heads_at, final=route.final, remaining=route.remaining
    )


def ltp(spec: EncoderSpec, route: Route) -> int:
    """LTP and Magic Pyramid: 2 x MAC, real tokens, attention products, no heads and no classifier."""
    remaining = route.tokens if route.remaining is None else route.remaining
    return sum(layer_flops(spec, before, after) for before, after in zip(route.tokens, remaining, strict=True))


def ltp_bops(spec: EncoderSpec, route: Route, bits: int) -> int:
    """LTP Figure 4.4: its FLOPs as bit operations with numbers of `bits` bits, also in attention products.

    Its relative BOPs are this at 8 bits over the unpruned model's at 16. Compare `ziggurat.encoder.flops.path_bops`.
    """
    return bit_operations(ltp(spec, route), bits, bits)


def fastbert(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's paper and README: 2 x MAC of linear maps only, padded, heads charged without their last 128 → N map.

    Its own classifier is a head like the others, so there is one more head if `final`.
    """
    return 2 * _fastbert_macs(spec, route, last_map=0)


def fastbert_macs(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's code with a newer thop: MAC where the paper has 2 x MAC, and with the heads' 128 → N map."""
    return _fastbert_macs(spec, route, last_map=FASTBERT_WIDTH * route.n_classes)


def lat(spec: EncoderSpec, route: Route) -> int:
    """Length-Adaptive Transformer and Dynamic-TinyBERT: MAC (called FLOPs), padded, attention products, no heads.

    Its length configuration is a route with these lengths as `tokens` and `remaining`, and `padded_to` None.
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
    """DeeBERT, BERxiT, PABEE and CascadeBERT: executed layers, independent of width and input length."""
    return len(route.tokens)


CONVENTIONS: Mapping[str, Callable[[EncoderSpec, Route], int]] = {
    "ours": ziggurat,
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
    longest = route.padded[0]  # FastBERT does not prune, so all layers and heads have the same length
    layer = (4 * d * d + 2 * d * spec.intermediate) * longest
    head = (d * w + 4 * w * w) * longest + w * w + last_map
    return layer * len(route.tokens) + head * n_heads
