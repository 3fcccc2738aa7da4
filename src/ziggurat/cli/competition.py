"""Options of `bench --peers`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ziggurat.cli.options import words
from ziggurat.errors import UserError

if TYPE_CHECKING:
    from ziggurat.data.sources import Columns
    from ziggurat.measure.subject import ModelOptions

Peers = Annotated[
    bool,
    typer.Option(
        "--peers", help="Beside ONNX Runtime and OpenVINO too, each at its best batch size; CPU, all our dtypes."
    ),
]
Only = Annotated[
    str | None,
    typer.Option(help="With --peers: parts of names, comma-separated (openvino,int8); our first is always there."),
]
CalibrationData = Annotated[
    str | None,
    typer.Option(help="With --peers: texts for int8 peers (default: the model's training rows, or some of --data)."),
]
Scored = Annotated[int | None, typer.Option(help="With --peers: how many texts accuracy is of (default: 2000).")]


@dataclass(frozen=True)
class CompetitionOptions:
    """What four options say of the competition."""

    peers: bool
    only: str | None
    calibration: str | None
    scored: int | None

    def run(
        self,
        model: str,
        data: str,
        sizes: Sequence[int] | None,
        points: Sequence[str] | None,
        columns: Columns,
        options: ModelOptions,
        texts: int,
        repeats: int,
        out: Path | None,
        progress: Callable[[str], None],
    ) -> dict[str, Any]:
        """Calls the job."""
        from ziggurat.bench.compete import BATCH_SIZES, Rules, compete

        rules = Rules(
            batch_sizes=sizes or BATCH_SIZES,
            timed_texts=texts,
            scored_texts=Rules.scored_texts if self.scored is None else self.scored,
            repeats=repeats,
            only=() if self.only is None else words(self.only, "--only"),
            calibration=self.calibration,
        )
        return compete(model, data, rules, points, columns, options, out, progress)


def competition_options(
    peers: Peers = False, only: Only = None, calibration: CalibrationData = None, scored: Scored = None
) -> CompetitionOptions:
    """Whether there is a competition, and how it is held; UserError for its options without it."""
    if not peers and (only, calibration, scored) != (None, None, None):
        raise UserError("--only, --calibration and --scored go with --peers")
    return CompetitionOptions(peers, only, calibration, scored)
