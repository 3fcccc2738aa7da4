"""Batches of texts through the `tokenizers` library: with how many threads, and where it can have none."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

_PARALLEL = "TOKENIZERS_PARALLELISM"  # the library's own switch


def limit_threads(threads: int) -> None:
    """Limits the library's threads in this process; a limit set by the user stays. Call it before the first batch.

    Tokenizer and engine never compute at the same time, so together they do not exceed this number. The setting belongs
    to the process: commands or services make it, models do not.
    """
    os.environ.setdefault("RAYON_NUM_THREADS", str(threads))


def in_batch(encode: Callable[..., list[Any]], texts: Sequence[Any]) -> list[Any]:
    """Encodings of texts without special tokens by `encode`, one of the library's batch functions.

    If the system grants no threads, the library panics in this and all later calls, with an error that is no Exception.
    Then this thread encodes the texts, as in forked processes.
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
    """After the first batch, forked children tokenise on the calling thread.

    A child has none of the library's threads and would wait for them endlessly. The library handles this itself, but
    not if the user has set its switch, or while its threads start. A child has a single thread, so no other thread
    reads the environment while this writes it.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: os.environ.update({_PARALLEL: "false"}))
