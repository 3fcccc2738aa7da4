"""Command lines of the version before: they work for one release, with one warning that names the new one."""

import json

import pytest

from ziggurat.cli.old_names import translated


@pytest.mark.parametrize(
    ("old", "new", "warned"),
    [
        ("bench m --data x --peers --only a", "compare m --data x --only a", "`ziggurat compare`"),
        ("bench m --profile --batch 2", "profile m --batch 2", "`ziggurat profile`"),
        ("report grid m --data x --out o", "report sweep m --data x --out o", "`ziggurat report sweep`"),
        ("predict m text --engine torch", "predict m text --backend torch", "--engine is now --backend"),
        ("eval m --data x --engine=native", "eval m --data x --backend=native", "--engine is now --backend"),
    ],
)
def test_an_old_line_becomes_the_new_one_with_one_warning(old, new, warned, capsys):
    assert translated(old.split()) == new.split()
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith("warning: ") and warned in err


@pytest.mark.parametrize(
    "line",
    [
        "predict m grid --backend torch",
        "predict m -- --engine --peers",
        "bench m --data x --batch 1,8",
        "report lengths grid --data x --out o",
        "",
    ],
)
def test_a_new_line_and_texts_behind_two_dashes_stay_as_they_are(line, capsys):
    assert translated(line.split()) == line.split()
    assert capsys.readouterr().err == ""


def test_an_old_option_changes_nothing_in_the_output(ziggurat, model_folder):
    """The warning is on stderr alone: programs that read the JSON get what they got."""
    code, old, err = ziggurat("info", model_folder, "--json")
    assert code == 0 and err == ""
    line = ["predict", model_folder, "bat kin", "--device", "cpu", "--json"]
    code, old, err = ziggurat(*line, "--engine", "torch")
    _, new, quiet = ziggurat(*line, "--backend", "torch")
    assert code == 0 and err.count("warning: --engine is now --backend") == 1 and quiet == ""
    old, new = ({k: v for k, v in json.loads(out)["answers"][0].items() if k != "microseconds"} for out in (old, new))
    assert old == new
