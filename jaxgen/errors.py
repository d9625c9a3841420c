"""What the user is told: warnings, and exceptions that the command line turns into a message and an
exit code."""

import contextlib
import sys


class UserError(ValueError):
    """What was asked for cannot be done; the message names the flag and the mend.

    The command line prints the message alone and exits with code 2. Library callers can
    catch it as a `ValueError`.
    """


class Stopped(Exception):
    """A run ended before its last step: (message, exit code)."""

    def __init__(self, message: str, code: int) -> None:
        self.message, self.code = message, code

    def __str__(self) -> str:
        return self.message


def warn(text: str) -> None:
    """Tells what is no error, as a line on stderr; that it cannot be written ends nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
