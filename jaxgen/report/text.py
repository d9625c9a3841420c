"""Text that leaves the program. It may hold anything, a file's name that is no text too, and where
it goes may know few characters."""

import codecs
import io
import sys
import unicodedata

ESCAPE = "jaxgen.escape"
"""The name of an error handler that writes in ASCII what cannot be encoded, and loses nothing."""

ALIKE = {"±": "+-", "…": "...", "²": "^2", "°": " degrees", "é": "e"}
"""What our own words have beyond ASCII, in it."""


def readable(text: str) -> str:
    """The text with what no page can show escaped: bytes that are no text, control characters."""
    return "".join(_ascii(c) if unicodedata.category(c) in ("Cc", "Cs") else c for c in text)


def on_any_terminal() -> None:
    """Lets stdout and stderr take every text, whatever the locale."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPE)


def _ascii(c: str) -> str:
    """A character in ASCII. Python stands U+DC80 to U+DCFF for bytes of a name that is no text."""
    if 0xDC80 <= ord(c) <= 0xDCFF:
        return f"\\x{ord(c) - 0xDC00:02x}"
    return ALIKE.get(c) or c.encode("unicode_escape").decode()


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_ascii, error.object[error.start : error.end])), error.end


codecs.register_error(ESCAPE, _escape)
