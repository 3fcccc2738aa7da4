"""Golden outputs: the `--json` of every command for all four problems in both backends, and what is refused today."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from tests.kit.golden import check, masked, named
from tests.kit.machines import made_up_profile, made_up_profile_beside, made_up_small_cost, made_up_timings
from tests.kit.scenes import (
    CASES,
    CLASSES,
    LABELS,
    PROBLEMS,
    QUESTIONS,
    REFUSED,
    add_points,
    save_model_folder,
    save_question_folder,
    write_recipes,
    write_rows,
)
from ziggurat import native
from ziggurat.cli import main

SIZES = {"ROWS": 240, "LESS": 120, "SOME": 36, "FEW": 6}  # rows
COPIES = {"COPY": "MODEL", "CASCADE-COPY": "CASCADE", "EDITED": "MODEL", "DEMO/model": "MODEL"}


@pytest.fixture(scope="session")
def scenes(tmp_path_factory, make_bert, make_checkpoint, make_static, make_folder):
    """A function: the name of a problem in, the paths that its command lines name out; made at the first call."""
    made = {}

    def scene(problem):
        if problem not in made:
            made[problem] = make_scene(problem)
        return made[problem]

    def make_scene(problem):
        from ziggurat.encoder import write_cascade

        work = tmp_path_factory.mktemp("scene") / problem
        work.mkdir()
        places = {name: write_rows(problem, n, work / f"{name.lower()}.json") for name, n in SIZES.items()}
        if problem != QUESTIONS:
            places = {name: path.rename(path.with_suffix(".jsonl")) for name, path in places.items()}
        places |= write_recipes(problem, work)
        if problem == QUESTIONS:
            model = save_question_folder(work, make_checkpoint)
            places["CHECKPOINT"] = work / "checkpoint"
        else:
            changes = {CLASSES: {}, LABELS: {"problem_type": "multi_label_classification"}}
            one_number = {"num_labels": 1, "id2label": {0: "LABEL_0"}, "label2id": {"LABEL_0": 0}}
            bert = make_bert(**changes.get(problem, one_number))
            places["CHECKPOINT"] = make_checkpoint(bert, work / "checkpoint")
            model = save_model_folder(problem, places["CHECKPOINT"], work / "model")
        places["MODEL"] = add_points(problem, model)
        if problem == CLASSES:
            places["STATIC"], places["CASCADE"] = make_static(), work / "cascade"
            write_cascade([places["STATIC"], model], places["CASCADE"])
            places["PAIRS"] = make_folder(pairs=True)
        return places

    return scene


@pytest.fixture(autouse=True)
def no_clock(monkeypatch, tmp_path):
    """A machine whose speed is known, so that times choose nothing; profiles are kept in the test's own folder."""
    monkeypatch.setenv("ZIGGURAT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("ziggurat.calibrate.times.stored_profile", made_up_profile)
    monkeypatch.setattr("ziggurat.calibrate.times._timed", made_up_small_cost)
    monkeypatch.setattr("ziggurat.calibrate.times.interleave", made_up_timings)
    monkeypatch.setattr("ziggurat.calibrate.points.interleave", made_up_timings)
    monkeypatch.setattr("ziggurat.measure.check.profile_beside", made_up_profile_beside)


@pytest.fixture
def run(capsys, monkeypatch, tmp_path, scenes):
    """A function: problem, command line and backend in; exit code, stdout and stderr, and the paths' names out."""

    def places_of(problem, words):
        places = dict(scenes(problem))
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        for copy, source in COPIES.items():
            name = copy.partition("/")[0]
            places[name] = tmp_path / name.lower()
            if name in words and not places[name].exists():
                shutil.copytree(places[source], tmp_path / copy.lower())
        if "EDITED" in words:
            tokenizer = places["EDITED"] / "tokenizer_config.json"
            tokenizer.write_text(tokenizer.read_text() + "\n")
        return places | {"OUT": out}

    def call(problem, words, backend):
        places = {name: str(path) for name, path in places_of(problem, words).items()}
        monkeypatch.setattr(
            "ziggurat.analyses.demonstration.STDLIB_DOCS", places["SOME"]
        )  # which is one of its sources
        line = [filled(word, places) for word in words]
        line += [] if backend is None else ["--backend", backend, "--device", "cpu", "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["ziggurat", *line, *([] if "--json" in line else ["--json"])])
        capsys.readouterr()  # what making the scene printed
        with pytest.raises(SystemExit) as stop:
            main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err, places

    return call


def filled(word, places):
    """A word of a command line with the path that its first part names."""
    name, slash, rest = word.partition("/")
    return f"{places[name]}{slash}{rest}" if name in places else word


def all_of(cases):
    """Problem, case and backend, None for a command without one."""
    return [
        pytest.param(problem, case, backend, id="-".join(filter(None, (problem, case.name, backend))))
        for problem in PROBLEMS
        for case in cases[problem]
        for backend in case.backends or (None,)
    ]


@pytest.mark.parametrize(("problem", "case", "backend"), all_of(CASES))
def test_golden_output(problem, case, backend, run, pytestconfig):
    if backend == "native" and (reason := native.why_missing()):
        pytest.skip(reason)
    if case.first:
        code, _, err, _ = run(problem, case.first, backend)
        assert code == 0, err
    code, out, err, places = run(problem, case.words, backend)
    assert code == 0, err
    result = {"json": json.loads(out)}
    for name in case.files:
        result[name] = [json.loads(line) for line in Path(places["OUT"], name).read_text().splitlines()]
    values = json.loads(named(json.dumps(result), places | {'"BACKEND"': f'"{backend}"'}))
    regenerate = pytestconfig.getoption("regenerate_golden") and backend in (case.backends or (None,))[:1]
    check(f"{problem}/{case.name}", masked(values, case.rough), regenerate)


@pytest.mark.parametrize("problem", [problem for problem in PROBLEMS if REFUSED[problem]])
def test_golden_refusals(problem, run, pytestconfig):
    found = {}
    for case in REFUSED[problem]:
        code, out, err, places = run(problem, case.words, "torch" if case.backends else None)
        found[case.name] = {"code": code, "message": named(err.strip(), places), "out": out}
    check(f"refusals/{problem}", found, pytestconfig.getoption("regenerate_golden"))
