"""Groups of options that commands share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import pytest
import typer
from typer.testing import CliRunner

from ziggurat.cli.options import assembled

if TYPE_CHECKING:
    from nowhere import Shape  # what a command gets need not be importable when its options are read

Side = Annotated[int, typer.Option(help="Of the rectangle.")]


def sides(width: Side, height: Side = 2) -> Shape:
    return (width, height)


@assembled(shape=sides)
def painted(colour: Annotated[str, typer.Option()] = "red", *, shape: Shape) -> tuple[str, Shape]:
    return colour, shape


@pytest.fixture
def command():
    """A function: a command in, a function that runs a command line and returns what it printed out."""

    def make(function):
        app = typer.Typer()
        app.command()(function)
        return lambda *line: CliRunner().invoke(app, line, catch_exceptions=False).output.strip()

    return make


def test_a_command_offers_the_options_of_a_group(command):
    @assembled(shape=sides)
    def show(name: str, shape: Shape, times: int = 1) -> None:
        typer.echo(f"{name} {shape} {times}")

    run = command(show)
    assert run("a", "--width", "3") == "a (3, 2) 1"
    assert run("a", "--width", "3", "--height", "5", "--times", "7") == "a (3, 5) 7"
    assert "Missing option '--width'" in run("a")


def test_groups_may_hold_groups_and_keep_the_parameters_place(command):
    @assembled(one=painted)
    def show(before: str, one: object, after: str) -> None:
        typer.echo(f"{before} {one} {after}")

    assert list(show.__annotations__) == ["before", "colour", "width", "height", "after"]
    assert command(show)("x", "y", "--width", "4", "--colour", "blue") == "x ('blue', (4, 2)) y"


def test_commands_with_the_same_group_do_not_share_values(command):
    def maker(function):
        return command(assembled(shape=sides)(function))

    first, second = maker(lambda shape: typer.echo(f"first {shape}")), maker(lambda shape: typer.echo(f"2nd {shape}"))
    assert [first("--width", "1"), second("--width", "2"), first("--width", "3")] == [
        "first (1, 2)",
        "2nd (2, 2)",
        "first (3, 2)",
    ]
