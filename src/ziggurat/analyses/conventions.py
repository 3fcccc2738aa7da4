"""What other papers would print for the same run: their conventions of cost, by name.

A speed-up means little across papers that count differently. Each convention turns a `Route` into that paper's number;
a speed-up in its unit is the full model's number over the route's, summed over inputs. Reproduced to the digit in
`tests/unit/encoder/test_flops.py`. Ours is in `ziggurat.encoder.flops`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ziggurat.encoder.flops import FASTBERT_WIDTH, bit_operations, layer_flops, path_flops
from ziggurat.encoder.spec import EncoderSpec

TR_BERT_SELECTOR_WIDTH = 32  # hidden width of TR-BERT's token selector


@dataclass(frozen=True)
class Route:
    """The way of one input through a model: all that any convention asks for."""

    tokens: tuple[int, ...]  # real tokens that entered each layer that ran
    n_classes: int
    kept: tuple[int, ...] | None = None  # tokens that left each layer; None = no pruning
    heads_at: tuple[int, ...] = ()  # layers, 1 … L, behind which an exit head was computed
    final: bool = True  # the model's own classifier was computed
    kind: str = "fastbert"  # of the exit heads
    padded_to: int | None = (
        None  # what a system that pads makes of every layer's tokens; None = `tokens` are its lengths
    )
    selectors_at: tuple[int, ...] = ()  # layers, 1 … L, in front of which a TR-BERT selector ran

    @property
    def padded(self) -> tuple[int, ...]:
        """Tokens per layer as a system that pads computes them."""
        return self.tokens if self.padded_to is None else (self.padded_to,) * len(self.tokens)


def ours(spec: EncoderSpec, route: Route) -> int:
    """Ziggurat's own: 2 x MAC, real tokens, attention products, heads and classifier."""
    return path_flops(
        spec, route.kind, route.n_classes, route.tokens, route.heads_at, final=route.final, remaining=route.kept
    )


def ltp(spec: EncoderSpec, route: Route) -> int:
    """LTP and Magic Pyramid: 2 x MAC, real tokens, attention products, no heads and no classifier."""
    kept = route.tokens if route.kept is None else route.kept
    return sum(layer_flops(spec, before, after) for before, after in zip(route.tokens, kept, strict=True))


def ltp_bops(spec: EncoderSpec, route: Route, bits: int) -> int:
    """LTP Figure 4.4: its FLOPs as bit operations, everything (attention products too) in numbers of `bits` bits.

    Its relative BOPs are this at 8 bits over the unpruned model's at 16. Ours is `ziggurat.encoder.flops.path_bops`.
    """
    return bit_operations(ltp(spec, route), bits, bits)


def fastbert(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's paper and README: 2 x MAC of linear maps only, padded, heads charged without their last 128 → N map.

    Its own classifier is a head like the others, hence one more where `final`.
    """
    return 2 * _fastbert_macs(spec, route, last_map=0)


def fastbert_macs(spec: EncoderSpec, route: Route) -> int:
    """FastBERT's code with a newer thop: MAC where the paper has 2 x MAC, and the heads' 128 → N map is counted."""
    return _fastbert_macs(spec, route, last_map=FASTBERT_WIDTH * route.n_classes)


def lat(spec: EncoderSpec, route: Route) -> int:
    """Length-Adaptive Transformer and Dynamic-TinyBERT: MAC (called FLOPs), padded, attention products, no heads.

    A length configuration of theirs is a route with those lengths as `tokens` and `kept`, and `padded_to` None.
    """
    kept = route.padded if route.kept is None or route.padded_to is not None else route.kept
    return sum(layer_flops(spec, before, after) for before, after in zip(route.padded, kept, strict=True)) // 2


def tr_bert(spec: EncoderSpec, route: Route) -> int:
    """TR-BERT: per layer a table entry (MAC, attention products), selectors n (32 d + 32), the d → N classifier."""
    layers = sum(layer_flops(spec, n) for n in route.tokens) // 2
    selectors = (
        sum(route.tokens[layer - 1] for layer in route.selectors_at) * TR_BERT_SELECTOR_WIDTH * (spec.hidden + 1)
    )
    return layers + selectors + (spec.hidden * route.n_classes if route.final else 0)


def layers(spec: EncoderSpec, route: Route) -> int:
    """DeeBERT, BERxiT, PABEE and CascadeBERT: executed layers, whatever their width or their input's length."""
    return len(route.tokens)


CONVENTIONS: Mapping[str, Callable[[EncoderSpec, Route], int]] = {
    "ours": ours,
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
