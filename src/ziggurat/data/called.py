"""What rows may call a model's classes: other spellings of one name, and no more."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence

from ziggurat.errors import UserError


class Called:
    """Finds the class that a row's label means.

    Formats write one label in several ways: 1, 1.0 and "1", or true, "True" and 1. Case and white space do not count
    where no two names differ by them alone. Where the classes have no names, LABEL_1 is 1. A number is never taken for
    the place of a class that has a name: rows may count classes in another order.
    """

    def __init__(self, names: Sequence[int | str]) -> None:
        """`names` in the order of the model's outputs; UserError where two of them are the same."""
        refuse_repeated(names, "the model's labels")
        self._exact = {str(name): place for place, name in enumerate(names)}
        if is_unnamed(names):
            self._exact |= {f"LABEL_{place}": place for place in range(len(names))}
            self._exact |= {str(place): place for place in range(len(names))}
        times = Counter(map(plain, self._exact))
        self._plain = {plain(name): place for name, place in self._exact.items() if times[plain(name)] == 1}

    def find(self, label: object) -> int | None:
        """The place of a label's class, None = no class is called that."""
        for written in _spellings(label):
            if written in self._exact:
                return self._exact[written]
        return self._plain.get(plain(label))


def plain(label: object) -> str:
    """A label without the differences that are most often slips: case, white space, forms of one character."""
    return " ".join(unicodedata.normalize("NFKC", str(label)).casefold().split())


def _spellings(label: object) -> tuple[str, ...]:
    if isinstance(label, bool):
        return str(int(label)), str(label), str(label).lower(), str(label).upper()
    if isinstance(label, int):
        return str(label), f"{label}.0"
    if isinstance(label, float) and label.is_integer():
        return str(label), str(int(label))
    return (str(label),)


def refuse_repeated(names: Sequence[object], where: str) -> None:
    """UserError where two classes have one name: no label of a row would say which of them is meant."""
    given = Counter(str(name) for name in names if name is not None)
    name, times = given.most_common(1)[0] if given else ("", 0)
    if times > 1:
        places = ", ".join(str(place) for place, other in enumerate(names) if str(other) == name)
        raise UserError(f"{where}: classes {places} have one name, {name!r}; give each a name of its own")


def is_unnamed(names: Sequence[object]) -> bool:
    """Whether classes have no names of their own: they are called 0, 1, … or LABEL_0, LABEL_1, … in order."""
    return all(
        not isinstance(name, bool) and (name is None or str(name) in (str(place), f"LABEL_{place}"))
        for place, name in enumerate(names)
    )
