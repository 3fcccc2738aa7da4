"""The exceptions that a user is meant to see."""

_ROOM = 80  # characters


def brief(value: object) -> str:
    """A value that somebody wrote, as Python spells it, cut to what a message has room for."""
    said = repr(value)
    return said if len(said) <= _ROOM else f"{said[:_ROOM]}…"


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: it names the file, row or option, and says the fix. The command line prints it
    without a traceback and exits with code 2.
    """

    exit_code = 2


class Stopped(UserError):
    """The user stopped the work, of which something is kept; the message says what goes on from it."""

    exit_code = 130  # what a shell says of a program that Ctrl-C has ended


class DeadlinePassed(Exception):
    """An input had no answer when its deadline came: it was not computed any further."""

    def __init__(self) -> None:
        super().__init__("the deadline passed before there was an answer; allow more time, or send less at once")


def install(extra: str) -> str:
    """How to install an extra of Ziggurat, for messages that end with it.

    From its own folder: a package index may have no project of this name, or somebody else's.
    """
    return f"pip install '.[{extra}]' in Ziggurat's folder"


def first_line(error: BaseException) -> str:
    """What another library says went wrong, short enough for a one-line message."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
