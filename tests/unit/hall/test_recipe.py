"""Recipes: those that ship are whole, and every mistake in one is named with where it stands."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ziggurat.config import from_mapping
from ziggurat.errors import UserError
from ziggurat.recipe import (
    KINDS,
    PruningConfig,
    Recipe,
    SearchConfig,
    StageConfig,
    StudentConfig,
    load_recipe,
    recipe_folder,
)

SHIPPED = sorted(path.name.removesuffix(".toml") for path in recipe_folder().iterdir() if path.name.endswith(".toml"))
STAGE = {"kind": "heads", "epochs": 2, "learning_rate": 0.1}
RECIPE = {"name": "mine", "description": "a test", "stages": [STAGE]}


def reader_of(key: str) -> str:
    """A kind of stage that reads a key."""
    (found,) = (each for each in dataclasses.fields(StageConfig) if each.name == key)
    return found.metadata.get("kinds", KINDS)[-1]


# Where a value stands in an error message, and a table that has it there.
PLACES = {
    Recipe: ("r", lambda values: RECIPE | values),
    StageConfig: ("s", lambda values: STAGE | {"kind": reader_of(next(iter(values), "epochs"))} | values),
    SearchConfig: ("search", lambda values: values),
    StudentConfig: ("student", lambda values: {"layers": 2} | values),
}


@pytest.fixture
def write(tmp_path):
    """A function that writes a file of text or bytes and returns its path as a string."""

    def write_file(name: str, content: str | bytes) -> str:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return str(path)

    return write_file


def refusal(kind: type, values: dict) -> str:
    where, whole = PLACES[kind]
    with pytest.raises(UserError) as caught:
        from_mapping(kind, whole(values), where)
    message = str(caught.value)
    assert message.startswith(f"{where}: ") and "\n" not in message
    return message


def test_every_shipped_recipe_loads_and_says_what_it_is():
    from ziggurat.training.stages import STAGES

    assert set(SHIPPED) >= {
        "adapt",
        "demo",
        "early-exit",
        "ltp",
        "magic-pyramid",
        "magic-pyramid-joint",
        "magic-pyramid-shares",
        "magic-pyramid-small",
        "spatten",
        "lat",
        "power",
        "manual-thresholds",
        "distil",
        "pkd",
        "pkd-last",
        "theseus",
        "truncated",
        "tinybert",
        "dynamic-tinybert",
    }
    for name in SHIPPED:
        recipe = load_recipe(name)
        assert recipe.name == name
        assert recipe.description and (recipe.stages or recipe.small)
        assert {stage.kind for stage in recipe.stages} <= set(STAGES)
    assert [stage.kind for stage in load_recipe("adapt").stages] == ["heads"]


def test_an_unknown_recipe_lists_those_that_ship():
    with pytest.raises(UserError) as caught:
        load_recipe("ealry-exit")
    assert all(name in str(caught.value) for name in ("ealry-exit", *SHIPPED))


def test_a_file_is_read_like_a_shipped_recipe(write):
    text = 'name = "mine"\ndescription = "d"\nhead_layers = [2, 4]\n[[stages]]\nkind = "heads"\n'
    recipe = load_recipe(write("mine.toml", text + "epochs = 3\nlearning_rate = 1\n"))
    assert recipe == Recipe("mine", "d", (StageConfig("heads", 3.0, 1.0),), head_layers=(2, 4))
    assert isinstance(recipe.stages[0].epochs, float)


@pytest.mark.parametrize("content", ["name = ", "[[stages]\n", b"\xff\xfe"])
def test_a_file_that_is_no_toml_is_named(write, content):
    path = write("broken.toml", content)
    with pytest.raises(UserError, match=r"broken\.toml: not valid TOML"):
        load_recipe(path)


def test_a_mistake_in_a_file_names_file_place_and_key(write):
    text = 'name = "mine"\ndescription = "d"\n[[stages]]\nkind = "heads"\nepochs = 3\nlerning_rate = 1\n'
    with pytest.raises(UserError, match=r"mine\.toml: stages\[0\]: unknown key 'lerning_rate'.*'learning_rate'"):
        load_recipe(write("mine.toml", text))


def test_an_unknown_key_suggests_the_nearest_or_lists_all():
    assert "unknown key 'max_lenght'; did you mean 'max_length'?" in refusal(Recipe, {"max_lenght": 8})
    message = refusal(Recipe, {"zzz": 8})
    assert all(field.name in message for field in dataclasses.fields(Recipe))


@pytest.mark.parametrize("kind", [Recipe, StageConfig])
def test_every_key_without_a_default_must_be_there(kind):
    where, whole = PLACES[kind]
    required = [field.name for field in dataclasses.fields(kind) if field.default is dataclasses.MISSING]
    assert len(required) == {Recipe: 2, StageConfig: 3}[kind]
    for key in required:
        values = whole({})
        del values[key]
        with pytest.raises(UserError, match=f"{where}: key '{key}' is missing"):
            from_mapping(kind, values, where)


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (Recipe, {"name": 3}, "name: must be str, not 3"),
        (Recipe, {"max_length": 96.0}, "max_length: must be int, not 96.0"),
        (Recipe, {"max_length": True}, "max_length: must be int, not True"),
        (Recipe, {"select": "a tenth"}, "select: must be float, not 'a tenth'"),
        (Recipe, {"select": True}, "select: must be float, not True"),
        (Recipe, {"head_layers": 3}, "head_layers: must be a list, not 3"),
        (Recipe, {"head_layers": [1, "2"]}, "head_layers[1]: must be int, not '2'"),
        (Recipe, {"stages": STAGE}, f"stages: must be a list, not {STAGE}"),
        (Recipe, {"stages": ["heads"]}, "stages[0]: must be a table, not 'heads'"),
        (Recipe, {"stages": [STAGE, STAGE | {"epochs": "3"}]}, "stages[1]: epochs: must be float, not '3'"),
        (Recipe, {"temperatures": 1}, "temperatures: must be bool, not 1"),
        (Recipe, {"exit_score": 0.5}, "exit_score: must be str, not 0.5"),
        (StageConfig, {"reverse_kl": 1}, "reverse_kl: must be bool, not 1"),
        (StageConfig, {"kind": None}, "kind: must be str, not None"),
    ],
)
def test_a_value_of_the_wrong_type_is_named(kind, values, says):
    assert refusal(kind, values).endswith(says)


@pytest.mark.parametrize(
    ("kind", "key", "bad", "good"),
    [
        (StageConfig, "epochs", (0.0, -1.0, float("nan")), (0.1,)),
        (StageConfig, "learning_rate", (0.0, -1e-3), (1e-9,)),
        (StageConfig, "batch_size", (0, -1), (1,)),
        (StageConfig, "accumulate", (0,), (1,)),
        (StageConfig, "warmup", (-0.1, 1.0), (0.0, 0.99)),
        (StageConfig, "weight_decay", (-0.1,), (0.0,)),
        (StageConfig, "max_gradient", (0.0,), (0.1,)),
        (StageConfig, "evaluations", (0,), (1,)),
        (StageConfig, "label_weight", (-0.1, 1.1), (0.0, 1.0)),
        (StageConfig, "length_drop", (0.0, 1.0, -0.2), (0.01, 0.99)),
        (StageConfig, "sandwich", (-1,), (0,)),
        (StageConfig, "logit_temperature", (0.0,), (0.1,)),
        (StageConfig, "answer_weight", (-1.0, 0.0), (0.1,)),
        (StageConfig, "hidden_weight", (-1.0,), (0.0,)),
        (StageConfig, "attention_weight", (-1.0,), (0.0,)),
        (StageConfig, "cosine_weight", (-1.0,), (0.0,)),
        (StageConfig, "patient_weight", (-1.0,), (0.0, 1000.0)),
        (StageConfig, "patient_layers", ("first",), ("skip", "last")),
        (StageConfig, "replacing", (-0.1, 1.1), (0.0, 1.0)),
        (StageConfig, "replacing_growth", (-0.1,), (0.0, 2.0)),
        (StudentConfig, "layers", (0,), (1,)),
        (StudentConfig, "start", ("middle",), ("first", "skip", "last")),
        (StudentConfig, "hidden", (0,), (1,)),
        (StudentConfig, "intermediate", (0,), (1,)),
        (SearchConfig, "iterations", (-1,), (0,)),
        (SearchConfig, "population", (1,), (2,)),
        (SearchConfig, "mutations", (-1,), (0,)),
        (SearchConfig, "crossovers", (-1,), (0,)),
        (SearchConfig, "max_drop", (-0.01, 1.01), (0.0, 1.0)),
        (SearchConfig, "length_drop", (0.0, 1.0), (0.5,)),
        (SearchConfig, "rows", (0,), (1,)),
        (Recipe, "max_length", (2, 0), (3,)),
        (Recipe, "select", (0.0, -0.1), (0.01, 0.8)),
        (Recipe, "certify", (-0.1, 0.9, 1.0), (0.0, 0.89)),
    ],
)
def test_a_value_out_of_range_is_named_and_the_border_is_allowed(kind, key, bad, good):
    where, whole = PLACES[kind]
    for value in bad:
        assert f"{key} {value!r}: must be " in refusal(kind, {key: value})
    for value in good:
        assert getattr(from_mapping(kind, whole({key: value}), where), key) == value


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (
            {"kind": "count", "schedule": "geometric", "final": 8},
            "first None: must be given, with schedule 'geometric' alone",
        ),
        ({"kind": "count", "first": 9.0, "final": 8}, "first 9.0: must be given, with schedule 'geometric' alone"),
        (
            {"kind": "count", "schedule": "geometric", "first": 7.0, "final": 8},
            "first 7.0: must be in [final > 0, inf]",
        ),
        (
            {"kind": "count", "schedule": "geometric", "first": 7.0, "final": 0},
            "first 7.0: must be in [final > 0, inf]",
        ),
        (
            {"kind": "share", "schedule": "geometric", "first": 1.5, "final": 0.5},
            "first 1.5: must be in [final > 0, 1]",
        ),
        ({"schedule": "falling"}, "schedule 'falling': must be one of linear, flat, spatten, geometric"),
    ],
)
def test_a_geometric_schedule_falls_from_a_first_number(values, says):
    with pytest.raises(UserError) as caught:
        from_mapping(PruningConfig, values, "p")
    assert str(caught.value) == f"p: {says}"
    whole = {"kind": "count", "schedule": "geometric", "first": 8, "final": 8}
    assert from_mapping(PruningConfig, whole, "p").first == 8.0


def test_every_stage_reads_its_own_keys_and_refuses_others():
    from ziggurat.training.stages import STAGES

    assert set(KINDS) == set(STAGES)
    wrong = [("regular", {"distillation": 0.5}), ("lengthdrop", {"distillation": 0.5}), ("hard", {"temperature": 0.2})]
    for kind, values in [*wrong, ("joint", {"label_weight": 0.5}), ("heads", {"sandwich": 3})]:
        says = f"must be left out: stage {kind!r} does not read it"
        assert says in refusal(StageConfig, values | {"kind": kind})
        whole = STAGE | values | {"kind": reader_of(next(iter(values), "epochs"))}
        assert from_mapping(StageConfig, whole, "s").epochs == 2


def test_heads_learn_from_one_teacher_or_the_other():
    assert "must be 0 or 1 in stage 'heads'" in refusal(StageConfig, {"distillation": 0.1, "kind": "heads"})
    assert from_mapping(StageConfig, STAGE | {"distillation": 1.0}, "s").distillation == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"augment": {}}, "augment"),
        ({"stages": [], "small": {}, "pruning": {}}, "pruning"),
        ({"stages": [], "small": {}, "student": {"layers": 2}}, "student"),
    ],
)
def test_a_table_that_would_not_be_read_is_refused(values, says):
    assert says in refusal(Recipe, values) and "must be left out" in refusal(Recipe, values)


stages = st.builds(
    StageConfig,
    kind=st.just("heads"),
    epochs=st.floats(0.1, 9),
    learning_rate=st.floats(1e-6, 1),
    batch_size=st.integers(1, 64),
    label_weight=st.floats(0, 1),
    reverse_kl=st.booleans(),
)
recipes = st.builds(
    Recipe,
    name=st.text(max_size=5),
    description=st.text(max_size=5),
    stages=st.lists(stages, min_size=1, max_size=3).map(tuple),
    head_layers=st.none() | st.lists(st.integers(1, 11), max_size=3).map(tuple),
    select=st.floats(0.01, 0.5),
    certify=st.floats(0, 0.4),
    exit_score=st.sampled_from(["entropy", "top-entropy@5"]),
    temperatures=st.booleans(),
    search=st.none() | st.builds(SearchConfig, iterations=st.integers(0, 9), max_drop=st.floats(0, 1)),
    student=st.none() | st.builds(StudentConfig, st.integers(1, 9), hidden=st.none() | st.integers(1, 9)),
)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(recipes)
def test_a_recipe_comes_back_from_its_own_values(recipe):
    assert from_mapping(Recipe, dataclasses.asdict(recipe), "r") == recipe


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_comes_back_from_its_own_values(name):
    assert from_mapping(Recipe, dataclasses.asdict(load_recipe(name)), name) == load_recipe(name)
