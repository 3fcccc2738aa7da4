"""Draws docs/pictures/rooms.svg from the imports in src/ziggurat: an arrow from each room to the rooms that it uses.

An arrow is left out where a longer way of arrows leads to the same room (transitive reduction). A test compares the
committed picture with what this file draws now.

usage: python -m scripts.rooms
"""

from __future__ import annotations

import ast
import random
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path

from scripts.drawing import Canvas

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "ziggurat"
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
BASE = "base"  # the files beside the rooms, such as errors.py and types.py
OWN_BOX = {"model"}  # files beside the rooms that are drawn as rooms
ENTRIES = {"__init__", "__main__", "deprecated"}  # they only name what stands elsewhere

Graph = dict[str, set[str]]


def room_of(module: str) -> str:
    """The room of a dotted name below `ziggurat`: its package, or `base` for a file beside the packages."""
    first = module.split(".")[1]
    return first if (SOURCE / first).is_dir() or first in OWN_BOX else BASE


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports anywhere, inside functions and under `TYPE_CHECKING` too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "ziggurat":
            names |= {f"ziggurat.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name for name in names if name.startswith("ziggurat.")}


def dependences(source: Path = SOURCE) -> Graph:
    """Which rooms each room imports, itself excluded."""
    graph: Graph = {}
    for path in sorted(source.rglob("*.py")):
        if path.parent == source and path.stem in ENTRIES:
            continue
        room = room_of(".".join(["ziggurat", *path.relative_to(source).with_suffix("").parts]))
        used = set(map(room_of, imported(path)))
        if path.stem == "__init__":  # a room that is a public function as well: `ziggurat.train(…)`
            used -= OWN_BOX
        graph.setdefault(room, set()).update(used)
    return {room: imports - {room} for room, imports in graph.items()}


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """All rooms below `start`. ValueError for a circle."""
    found: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        room = waiting.pop()
        if room == start:
            raise ValueError(f"rooms import each other in a circle through {start}")
        if room not in found:
            found.add(room)
            waiting += graph[room]
    return found


def reduced(graph: Mapping[str, set[str]]) -> Graph:
    """The graph without the edges that a longer way replaces."""
    below = {room: reachable(graph, room) for room in graph}
    return {
        room: {other for other in graph[room] if not any(other in below[mid] for mid in graph[room])} for room in graph
    }


def floors(graph: Mapping[str, set[str]]) -> dict[str, int]:
    """The floor of each room: 0 for those that import nothing, else one above the highest room that it imports."""
    found: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in found:
            found[room] = 1 + max((floor(other) for other in sorted(graph[room])), default=-1)
        return found[room]

    for room in sorted(graph):
        floor(room)
    return found


def ways(graph: Mapping[str, set[str]], heights: Mapping[str, int]) -> list[list[str]]:
    """Each edge as a chain of points, one a floor; those between its two rooms are named `room>other@floor`."""
    return [
        [room, *(f"{room}>{other}@{height}" for height in range(heights[room] - 1, heights[other], -1)), other]
        for room in sorted(graph)
        for other in sorted(graph[room])
    ]


def columns(chains: Sequence[Sequence[str]], heights: Mapping[str, int]) -> dict[str, float]:
    """A place from left to right for each point, near its neighbours above and below, so that few edges cross."""
    height_of = dict(heights) | {point: int(point.split("@")[1]) for chain in chains for point in chain[1:-1]}
    levels: list[list[str]] = [[] for _ in range(1 + max(height_of.values()))]
    for point in sorted(height_of):
        levels[height_of[point]].append(point)
    neighbours: dict[str, list[str]] = {point: [] for point in height_of}
    for chain in chains:
        for upper, lower in pairwise(chain):
            neighbours[upper].append(lower)
            neighbours[lower].append(upper)
    found = []
    shuffle = random.Random(0).shuffle  # the same picture every time
    for _ in range(60):
        for level in levels:
            shuffle(level)
        place = {point: index - (len(level) - 1) / 2 for level in levels for index, point in enumerate(level)}
        for step in range(8):
            for level in levels if step % 2 else reversed(levels):
                means = [(round(_mean([place[other] for other in neighbours[point]]), 6), point) for point in level]
                for index, (_, point) in enumerate(sorted(means)):
                    place[point] = index - (len(level) - 1) / 2
            found.append((crossings(chains, height_of, place), _sideways(chains, place), sorted(place.items())))
    return dict(min(found)[2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))


def _sideways(chains: Sequence[Sequence[str]], place: Mapping[str, float]) -> float:
    """How far all edges lead to the side."""
    return sum((place[upper] - place[lower]) ** 2 for chain in chains for upper, lower in pairwise(chain))


def crossings(chains: Sequence[Sequence[str]], height_of: Mapping[str, int], place: Mapping[str, float]) -> int:
    """How many pairs of edges cross between two floors."""
    steps = [(upper, lower) for chain in chains for upper, lower in pairwise(chain)]
    return sum(
        (place[a] - place[c]) * (place[b] - place[d]) < 0
        for (a, b), (c, d) in combinations(steps, 2)
        if height_of[a] == height_of[c]
    )


def picture(graph: Mapping[str, set[str]]) -> str:
    """The graph as SVG, the rooms that everything rests on at the bottom."""
    edges = reduced(graph)
    heights = floors(edges)
    chains = ways(edges, heights)
    place = columns(chains, heights)
    top, widest = max(heights.values()), max(map(abs, place.values()))
    width, step_x, step_y = round(2 * widest * 125 + 160), 125, 74

    def at(point: str) -> tuple[float, float]:
        height = heights[point] if point in heights else int(point.split("@")[1])
        return width / 2 + step_x * place[point], 40 + step_y * (top - height)

    canvas = Canvas(
        width, 80 + step_y * top, "The rooms of the package; an arrow leads from a room to one that it uses"
    )
    for chain in chains:
        points = [at(point) for point in chain]
        points[0] = (points[0][0], points[0][1] + 17)
        points[-1] = (points[-1][0], points[-1][1] - 19)
        canvas.curve(points)
    for room in sorted(heights):
        x, y = at(room)
        canvas.box(x - 52, y - 17, 104, 34, room, kind="base" if room == BASE else "room")
    return canvas.svg()


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(picture(dependences()), "utf-8")
