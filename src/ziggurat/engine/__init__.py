"""Engine room: runs a model adaptively; `reference` is the specification. No torch but in `backends/torch*`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ziggurat.lazy import lazily

if TYPE_CHECKING:
    from ziggurat.engine.backend import Backend, Outcomes
    from ziggurat.engine.backends.native import NativeBackend
    from ziggurat.engine.backends.small import fastest
    from ziggurat.engine.backends.torch import TorchBackend
    from ziggurat.engine.engine import Engine, answer
    from ziggurat.engine.opened import OpenedModel
    from ziggurat.engine.reference import answer_all, answer_ladder
    from ziggurat.engine.replay import run_batches
    from ziggurat.engine.tiers import Ladder

_HOMES = {
    "Backend": "ziggurat.engine.backend",
    "Engine": "ziggurat.engine.engine",
    "Ladder": "ziggurat.engine.tiers",
    "NativeBackend": "ziggurat.engine.backends.native",
    "OpenedModel": "ziggurat.engine.opened",
    "Outcomes": "ziggurat.engine.backend",
    "TorchBackend": "ziggurat.engine.backends.torch",
    "answer": "ziggurat.engine.engine",
    "answer_all": "ziggurat.engine.reference",
    "answer_ladder": "ziggurat.engine.reference",
    "fastest": "ziggurat.engine.backends.small",
    "run_batches": "ziggurat.engine.replay",
}
__all__ = [
    "Backend",
    "Engine",
    "Ladder",
    "NativeBackend",
    "OpenedModel",
    "Outcomes",
    "TorchBackend",
    "answer",
    "answer_all",
    "answer_ladder",
    "fastest",
    "run_batches",
]

__getattr__ = lazily(__name__, _HOMES)
