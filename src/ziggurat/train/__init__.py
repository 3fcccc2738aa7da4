"""Training: rows and an encoder in, a model folder out. The room is the function of its name, too: `ziggurat.train(…)`.

Importing anything of a package sets the attribute of the package's name to the room, whatever stood there. So the room
itself can be called, as the function in `ziggurat.model`.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Callable(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """`ziggurat.model.train`."""
        from ziggurat.model import train

        return train(*arguments, **options)


sys.modules[__name__].__class__ = _Callable
