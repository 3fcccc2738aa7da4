"""Exceptions whose message is shown to the user, and helpers for such messages."""

_LONGEST = 80  # characters of a value that a message quotes


def brief(value: object) -> str:
    """The `repr` of a user's value, cut to a length that fits into a message."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


class UserError(Exception):
    """A mistake that the user can fix.

    The message is one line. It names the file, row or option, then the fix. The command line prints it without a
    traceback and exits with code 2.
    """

    exit_code = 2


class Stopped(UserError):
    """Interrupted by the user; partial work was saved. The message names the command that resumes it."""

    exit_code = 130  # the shell's code for a program that Ctrl-C ended


class DeadlinePassed(Exception):
    """The deadline of an input passed before it had an answer; its computation was stopped."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before there was an answer; allow more time, or send less at once")


def install(extra: str) -> str:
    """The end of a message: how to install an extra of Ziggurat.

    From the source folder: on a package index the name may be free, or belong to another project.
    """
    return f"pip install '.[{extra}]' in Ziggurat's folder"


def first_line(error: BaseException) -> str:
    """The first line of another library's error, for a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
