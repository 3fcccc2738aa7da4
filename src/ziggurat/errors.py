"""The one exception that a user is meant to see."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: it names the file, row or option, and says the fix. The command line prints it
    without a traceback and exits with code 2.
    """
