"""Tiny random models and invented rows of all four problems, and every command that is run on them.

All of it is seeded and no value lies near a threshold, so answers are the same on every processor and in both backends.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.kit.questions import save_span_folder, squad_content

CLASSES, LABELS, NUMBER, QUESTIONS = "classes", "labels", "number", "questions"
PROBLEMS = (CLASSES, LABELS, NUMBER, QUESTIONS)
BACKENDS = ("torch", "native")
NAMES = ("river", "stone", "tower")
# The words that the tiny tokenizer knows.
WORDS = [a + b for a in ("ba", "ki", "lo", "mu", "ne", "po", "ra") for b in ("t", "n", "sh", "r", "ss", "lm", "nd")]
POINTS = {  # by problem: exit score, thresholds of `balanced`, thresholds of `fast`
    CLASSES: ("entropy", (0.2, 0.25, 0.03), (0.5, 0.4, None)),
    LABELS: ("label-entropy", (0.8, 0.9, 0.6), (0.97, 0.96, None)),
    NUMBER: ("change", (None, 4.0, 1.0), (None, 7.0, 3.0)),
    QUESTIONS: ("span-entropy", (0.93, 0.85, 0.9), (0.95, 0.9, 0.93)),
}
_STAGE = '[[stages]]\nkind = "{}"\nepochs = 1\nlearning_rate = 1e-3\nevaluations = 1\n'
_RECIPE = 'name = "toy"\ndescription = "For tests."\n'
_WINDOWS = "[spans]\nwindow = 24\nstride = 5\nquestion = 6\n"


@dataclass(frozen=True)
class Case:
    """One command line. Words in capitals that a scene knows are replaced by its paths."""

    name: str
    words: Sequence[str]
    backends: Sequence[str] = BACKENDS  # with which it runs, by --backend; none = once, without the option
    first: Sequence[str] = ()  # a command line that is run before it
    rough: bool = False  # then numbers with fractions are not compared: they are of a training, or of a clock
    files: Sequence[str] = ()  # of those that it writes, JSON lines that are compared too


def _case(name: str, line: str, **more: Any) -> Case:
    return Case(name, line.split(), **more)


TEXTS = f"bat,kin losh mur,{' '.join(WORDS[:9])},net net ball".split(",")
TORCH: dict[str, Any] = {"backends": ("torch",)}  # where one of the two is enough
NATIVE: dict[str, Any] = {"backends": ("native",)}
ROUGH: dict[str, Any] = {"backends": (), "rough": True}
_CALIBRATE = "calibrate COPY --data LESS --max-drop 0.5 --name loose"
_COMMON = (
    _case("info", "info MODEL", backends=()),
    Case("explain", ["explain", "MODEL", *TEXTS[2:3], "--operating-point", "fast", "--html", "OUT/page.html"]),
    Case("explain-threshold", ["explain", "MODEL", *TEXTS[1:2], "--threshold", "0"]),
    _case("predict-rows", "predict MODEL --data FEW --out OUT/answers.jsonl", files=("answers.jsonl",)),
    Case("predict-full", ["predict", "MODEL", *TEXTS, "--operating-point", "full"]),
    Case("predict-threshold", ["predict", "MODEL", *TEXTS, "--threshold", "0.3"]),
    _case("eval", "eval MODEL --data SOME --operating-point fast"),
    _case("eval-batches", "eval MODEL --data SOME --batch-size 5"),
    _case("bench", "bench MODEL --data SOME --batch 1,8 --texts 8 --repeats 1 --out OUT/rows.jsonl"),
    _case("calibrate", _CALIBRATE.replace("LESS", "ROWS")),
    _case(
        "calibrate-agreement", "calibrate COPY --data LESS --criterion agreement --max-drop 0.5,0.7 --name a,b", **TORCH
    ),
    _case("calibrate-layers", "calibrate COPY --data LESS --max-drop 0.9 --max-layers 2", **NATIVE),
    _case("report-lengths", "report lengths MODEL --data SOME --out OUT/r --buckets 5,9 --time --texts 2"),
    _case("report-quantiles", "report quantiles MODEL --data SOME --out OUT/r --operating-point fast", **TORCH),
    _case("seal", "seal EDITED", backends=()),
    _case("train", "train --train ROWS --recipe RECIPE --model CHECKPOINT --out OUT/model", **ROUGH),
    _case("adapt", "adapt CHECKPOINT --train ROWS --recipe HEADS --out OUT/model", **ROUGH),
)
_QUESTION = ["bat kin", " ".join(WORDS[:30])]
_PEERS = "compare MODEL --data SOME --only transformers --batch 4 --repeats 1 --scored 12 --points fast"
_OF_QUESTIONS = {
    "compare": _case("compare", f"{_PEERS} --texts 16", backends=()),  # a quarter as many questions
    "explain": Case("explain", ["explain", "MODEL", *_QUESTION, "--operating-point", "fast", "--html", "OUT/p.html"]),
    "explain-threshold": Case("explain-threshold", ["explain", "MODEL", *_QUESTION, "--threshold", "0"]),
    "predict-full": Case(
        "predict-full", ["predict", "MODEL", _QUESTION[0], "--text-pair", _QUESTION[1], "--operating-point", "full"]
    ),
    "predict-threshold": Case(
        "predict-threshold", ["predict", "MODEL", _QUESTION[0], "--text-pair", _QUESTION[1], "--threshold", "0.3"]
    ),
}
_WATCHED = "predict COPY --data FEW --operating-point loose --watch OUT/monitor.json"
_HTML = "calibrate COPY --data LESS --max-drop 0.5 --html OUT/page.html"
_PROFILE = "profile MODEL --data FEW --batch 2 --texts 4 --repeats 1 --points fast"
_STATIC = "train --train ROWS --recipe static --model CHECKPOINT --out OUT/model"
_TAUGHT = "train --train ROWS --recipe static --teacher MODEL --out OUT/model"
_BY_ALL = (  # cases of every problem, which need an operating point that promises something, or libraries
    _case("predict-watch", _WATCHED, first=_CALIBRATE.split()),
    _case("calibrate-html", _HTML, **TORCH),
    _case("calibrate-reference", "calibrate COPY --data LESS --max-drop 0.5 --reference MODEL", **TORCH),
    _case("compare", f"{_PEERS} --texts 4", backends=()),
)
_CASCADE = _case("cascade", "cascade MODEL MODEL --out OUT/model", backends=())
_BY_SMALL = (
    _case("train-static", _STATIC, **ROUGH),
    _case("train-teacher", _TAUGHT, **ROUGH),
)
CASES: Mapping[str, Sequence[Case]] = {
    CLASSES: (
        *_COMMON,
        *_BY_ALL,
        *_BY_SMALL,
        _case("bench-figure", "bench MODEL --data SOME --batch 8 --texts 8 --repeats 1 --figure OUT/figure"),
        _case("profile", _PROFILE),
        _case("demo", "demo --out DEMO --device cpu", backends=()),
        _case("report-methods", "report methods MODEL CASCADE --data SOME --out OUT/r --no-time --curve 3", **TORCH),
        _case("report-thresholds", "report thresholds MODEL --data SOME --out OUT/r --taus 0.2,0.6", **TORCH),
        _case("report-trajectories", "report trajectories MODEL --data SOME --out OUT/r --buckets 5,9", **TORCH),
        _case("report-correctness", "report correctness MODEL --data SOME --out OUT/r --operating-point fast", **TORCH),
        _case("report-sweep", "report sweep MODEL --data SOME --out OUT/r --scales 0.5,1 --taus 0.6"),
        _case("report-deferral", "report deferral CASCADE --data SOME --out OUT/r"),
        _case("report-kernel", "report kernel --out OUT/r --lengths 16,32 --shares 0.5 --repeats 1", **ROUGH),
        _case("cascade-info", "info CASCADE", backends=()),
        _case("cascade-predict", "predict CASCADE --data FEW --threshold 0.5"),
        _case("cascade-eval", "eval CASCADE --data SOME --threshold 0.5"),
        Case("cascade-explain", ["explain", "CASCADE", *TEXTS[2:3], "--threshold", "0.1"]),
        _case("cascade-calibrate", "calibrate CASCADE-COPY --data LESS --max-drop 0.5 --scores entropy"),
        _case("cascade", "cascade STATIC MODEL --data ROWS --out OUT/model"),
        _case("static-info", "info STATIC", backends=()),
        _case("static-predict", "predict STATIC --data FEW --operating-point full"),
        _case("static-eval", "eval STATIC --data SOME --operating-point full"),
        _case("pairs-predict", "predict PAIRS bat --text-pair kin --operating-point full"),
    ),
    LABELS: (*_COMMON, *_BY_ALL, *_BY_SMALL, _CASCADE, _case("profile", _PROFILE, **NATIVE)),
    NUMBER: (*_COMMON, *_BY_ALL, *_BY_SMALL, _CASCADE, _case("profile", _PROFILE, **NATIVE)),
    QUESTIONS: tuple(_OF_QUESTIONS.get(case.name, case) for case in (*_COMMON, *_BY_ALL, _CASCADE)),
}
_FIGURE = _case("bench-figure", "bench MODEL --data SOME --texts 8 --repeats 1 --figure OUT/figure")
_REPORTS = tuple(
    _case(f"report-{kind}", f"report {kind} MODEL --data SOME --out OUT/r")
    for kind in ("methods", "thresholds", "trajectories", "correctness", "sweep", "deferral")
)
# Those that only want another problem than classes, or that are not there for questions. Whoever makes one of them work
# moves its case to CASES.
REFUSED: Mapping[str, Sequence[Case]] = {
    CLASSES: (),
    LABELS: (_FIGURE, *_REPORTS),
    NUMBER: (_FIGURE, *_REPORTS),
    QUESTIONS: (
        _FIGURE,
        *_REPORTS,
        _case("train-teacher", _TAUGHT, backends=()),
        _case("train-static", _STATIC, backends=()),
        _case("train-cascade", "train --train ROWS --recipe tango --out OUT/model", backends=()),
        _case("train-student", "train --train ROWS --recipe distil --teacher MODEL --out OUT/model", backends=()),
        _case("train-int8", "train --train ROWS --recipe ltp-int8 --out OUT/model", backends=()),
        _case("train-lengths", "train --train ROWS --recipe lat --out OUT/model", backends=()),
        _case("profile", _PROFILE),
        _case("eval-metric", "eval MODEL --data SOME --metric f1"),
        _case("eval-skip", "eval MODEL --data SOME --on-error skip"),
        _case("eval-encoding", "eval MODEL --data SOME --encoding cp1252"),
    ),
}


def label_of(problem: str, words: Sequence[str]) -> Any:
    """A third of the words belongs to each name: which has most, which have two or more, or how many the first has."""
    counts = np.bincount([WORDS.index(word) % 3 for word in words], minlength=3)
    if problem == CLASSES:
        return NAMES[int(counts.argmax())]
    if problem == LABELS:
        return [name for name, count in zip(NAMES, counts, strict=True) if count >= 2]
    return round(5 * float(counts[0] / len(words)) + 0.25, 2)


def write_rows(problem: str, n: int, path: Path) -> Path:
    """`n` labelled rows, or questions with their answers."""
    if problem == QUESTIONS:
        path.write_text(json.dumps(squad_content(n_articles=-(-n // 6), unanswerable=True)))
        return path
    rng = np.random.default_rng(5)
    drawn = [[WORDS[i] for i in rng.choice(len(WORDS), rng.integers(2, 16))] for _ in range(n)]
    rows = [{"text": " ".join(words), "label": label_of(problem, words)} for words in drawn]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_recipes(problem: str, folder: Path) -> Mapping[str, Path]:
    """A recipe of a backbone with heads, and one of heads alone."""
    windows = _WINDOWS if problem == QUESTIONS else "max_length = 24\n"
    made = {"RECIPE": ("regular", "heads"), "HEADS": ("heads",)}
    for name, kinds in made.items():
        (folder / f"{name}.toml").write_text(f"{_RECIPE}{windows}\n" + "\n".join(map(_STAGE.format, kinds)))
    return {name: folder / f"{name}.toml" for name in made}


def save_model_folder(problem: str, checkpoint: Path, folder: Path) -> Path:
    """A finished folder of random weights that prunes tokens, may exit after each layer, and has two points."""
    import torch

    from tests.kit.families import shake
    from ziggurat.encoder import LABEL_RANGE, Manifest, load_hf, save_model
    from ziggurat.recipe import PruningConfig
    from ziggurat.types import ProblemType

    kind = {CLASSES: ProblemType.SINGLE_LABEL, LABELS: ProblemType.MULTI_LABEL, NUMBER: ProblemType.REGRESSION}[problem]
    names = ("value",) if problem == NUMBER else NAMES
    pruning = PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0), vocabulary=0.9)
    torch.manual_seed(1)
    model = load_hf(checkpoint, len(names), "fastbert", (1, 2, 3), pruning=pruning, problem=kind)
    shake(model.exits)
    with torch.no_grad():
        model.pruning.vocabulary.copy_(torch.linspace(-1, 3, model.spec.vocabulary).roll(7))
    training = {"recipe": "none"} | ({LABEL_RANGE: [0.0, 6.0]} if problem == NUMBER else {})
    manifest = Manifest(
        labels=names,
        pairs=False,
        max_length=24,
        head_kind="fastbert",
        head_layers=(1, 2, 3),
        fingerprint="",
        training=training,
        problem_type=kind,
        pruning=pruning,
    )
    save_model(model.eval(), manifest, np.array([7], dtype=np.uint64), checkpoint, folder)
    return folder


def add_points(problem: str, folder: Path) -> Path:
    """Operating points `balanced` and `fast`, chosen by nobody."""
    from dataclasses import replace

    from ziggurat.encoder import read_manifest, write_manifest
    from ziggurat.types import OperatingPoint

    manifest = read_manifest(folder)
    score, *thresholds = POINTS[problem]
    points = tuple(
        OperatingPoint(name, score, values, manifest.fingerprint, target=0.01, data="d1")
        for name, values in zip(("balanced", "fast"), thresholds, strict=True)
    )
    write_manifest(replace(manifest, operating_points=points), folder)
    return folder


def save_question_folder(work: Path, make_checkpoint: Any) -> Path:
    """The same for spans; its checkpoint stands beside it."""
    from ziggurat.recipe import PruningConfig

    return save_span_folder(work, make_checkpoint, PruningConfig(per_layer=(0.8, 0.9, 0.95, 1.0)), training={})
