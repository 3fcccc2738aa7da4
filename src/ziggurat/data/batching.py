"""Batches of texts through the `tokenizers` library: with how many threads, and where it can have none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

_PARALLEL = "TOKENIZERS_PARALLELISM"  # the library's own switch


def limit_threads(threads: int) -> None:
    """Lets the library use so many threads at most in this process, from its first batch on; a user's limit stays.

    It tokenises while the engine waits and the reverse, so that both together never exceed this number. A setting of a
    process, for its command or service to make: no model makes it.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def in_batch(encode: Callable[..., list[Any]], texts: Sequence[Any]) -> list[Any]:
    """What `encode`, one of the library's functions for batches, makes of texts without special tokens.

    Where the system gives it no threads the library panics, with an exception that is no Exception, in this call and in
    all later ones: then this thread reads the texts, as it does in forked processes.
    """
    _alone_in_forks()
    try:
        return encode(texts, add_special_tokens=False)
    except BaseException as error:
        if "global thread pool" not in str(error):
            raise
    os.environ[_PARALLEL] = "false"
    return encode(texts, add_special_tokens=False)


@cache
def _alone_in_forks() -> None:
    """From the first batch on, children that are forked tokenise on the thread that asks for it.

    They have none of the library's threads, and would wait for them for ever. The library knows, but not where the user
    has set its switch, nor while its threads are being started. In a child there is one thread, so nothing else
    reads the environment while this writes it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: os.environ.update({_PARALLEL: "false"}))
