"""A calibration that never was, for tests of its page."""

from __future__ import annotations

import numpy as np

from ziggurat.calibrate import Calibration
from ziggurat.calibrate.page.data import Costly, Curve, Deciles, Mechanism, Picture, Spot, TokensLeft
from ziggurat.calibrate.result import RowsUsed, TargetResult
from ziggurat.types import Certificate, OperatingPoint

RUNGS, LAYERS = 3, 6
SCRIPT = "<script>alert('x')</script> & more"


def certificate(gain: float, estimate: float) -> Certificate:
    return Certificate(
        criterion="accuracy",
        estimate=estimate,
        rows=1450,
        data="d1",
        engine="native",
        dtype="int8",
        threads=2,
        batch_size=32,
        profile="k",
        predicted_ms=2 / gain,
        measured_ms=2.04 / gain,
        full_ms=2.0,
        gain=gain,
        gain_low=gain - 0.25,
        gain_high=gain + 0.25,
        differs=0.02,
        flops=1 / gain,
    )


def entry(name: str, target: float, gain: float = 1.0, estimate: float = 0.0, note: str | None = None) -> TargetResult:
    """Full depth where the gain is 1."""
    faster = gain > 1
    point = OperatingPoint(
        name=name,
        score="entropy",
        thresholds=(0.1 if faster else None,) * (RUNGS - 1),
        fingerprint="f",
        pruning=0.5 if faster else 0.0,
        certificate=certificate(gain, estimate),
    )
    return TargetResult(name, target, 3 if faster else 0, None, None, note, point)


def result(*points: TargetResult, criterion: str = "accuracy", reference: str | None = None) -> Calibration:
    return Calibration(
        model="runs/<b>model</b>",
        data="rows.jsonl",
        problem="single_label_classification",
        criterion=criterion,
        confidence=0.95,
        reference=reference,
        rows=RowsUsed(3000, 1450, 7),
        groups=1450,
        grouped=False,
        overlap=0.0,
        settings=12345,
        batch_size=32,
        profile="k",
        note=None,
        unit="points",
        points=points,
    )


def spot(name: str, gain: float, labels: bool = True) -> Spot:
    falling = np.linspace(0.012, 0, 10)
    return Spot(
        name=name,
        predicted_ms=2 / gain,
        measured_ms=2.04 / gain,
        gain=gain,
        loss=0.002,
        low=-0.001,
        high=0.0095,
        accuracy=0.9163 if labels else None,
        exits=np.array([0.625, 0.25, 0.125]),
        tokens=TokensLeft(np.linspace(0.9, 0.6, LAYERS), np.linspace(0.9, 0.111, LAYERS)),
        deciles=Deciles(
            np.linspace(0.02, 0.1, 10), falling, falling if labels else None, falling / 2 if labels else None
        ),
        sorted_by="margin after layer 2",
    )


def picture(*spots: Spot, labels: bool = True, settings: int = 12) -> Picture:
    ms = np.geomspace(1.9, 0.22, settings)
    loss = np.linspace(0, 0.1, settings) ** 2
    costly = [
        Costly(SCRIPT, 60 + i, 33, "layer 6", 4.25 - i / 10, "rock", "roll" if labels else None, labels)
        for i in range(10)
    ]
    return Picture(
        rungs=("layer 2", "layer 4", "layer 6"),
        full_ms=2.0,
        full_predicted_ms=1.9,
        full_loss=0.0,
        full_accuracy=0.9183 if labels else None,
        accuracy_scale=0.9183 if labels else None,
        frontier=Curve(ms, loss, loss - 0.002, loss + 0.004),
        estimate=loss + 0.001,
        random=Curve(ms * 1.05, loss * 3),
        oracle=Curve(np.array([0.3]), np.array([-0.01])),
        spots=spots,
        mechanisms=(
            Mechanism("full depth", 2.0),
            Mechanism("pruning alone", None, "the model prunes no tokens"),
            Mechanism("exits alone", 0.5, None, ("layer 2", "layer 4")),
            Mechanism("both", None, "the model prunes no tokens"),
        ),
        costly_at=spots[-1].name if spots else "full depth",
        mean_gflops=0.875,
        costly=tuple(costly),
    )
