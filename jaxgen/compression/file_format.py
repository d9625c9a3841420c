"""The file that `jaxgen compress` writes: a header, the coded payload, a checksum."""

import struct
import zlib
from typing import NamedTuple

from jaxgen.errors import UserError

MAGIC = b"\x93jaxgen\n"
VERSION = 1
"""The format's: it covers the header, the coder and the order in which symbols are coded."""

START = struct.Struct("<8sH")
FIXED = struct.Struct("<QIH16sB")  # payload bytes, images, chunk, fingerprint, bytes of text
CHECK = struct.Struct("<I")


class Header(NamedTuple):
    """What a decoder must know."""

    num: int
    """Images."""
    chunk: int
    """Images that were coded at a time."""
    fingerprint: bytes
    """16 bytes that name the model and its parameters."""
    made_by: str
    """What wrote it: for messages alone."""


def pack(header: Header, payload: bytes) -> bytes:
    """The file's bytes."""
    text = header.made_by.encode()[:255]
    fixed = FIXED.pack(len(payload), header.num, header.chunk, header.fingerprint, len(text))
    body = START.pack(MAGIC, VERSION) + fixed + text + payload
    return body + CHECK.pack(zlib.crc32(body))


def unpack(data: bytes) -> tuple[Header, bytes]:
    """Header and payload; UserError if it is no such file, or not whole, or changed."""
    whole = "copy it again, or compress the images again"
    if data[: len(MAGIC)] != MAGIC[: len(data)] or not data:
        raise UserError("it is not a file that jaxgen compress wrote; give one that is")
    if len(data) < START.size + FIXED.size:
        raise UserError(f"it is cut short ({len(data)} bytes); {whole}")
    _, version = START.unpack_from(data)
    if version != VERSION:
        raise UserError(
            f"it has format {version}, and this jaxgen reads format {VERSION}; use the jaxgen "
            f"that wrote it (if none wrote such a format, it is damaged: {whole})"
        )
    size, num, chunk, fingerprint, length = FIXED.unpack_from(data, START.size)
    begin = START.size + FIXED.size + length
    wanted = begin + size + CHECK.size
    if len(data) != wanted:
        what = "is cut short" if len(data) < wanted else "has bytes after its end"
        raise UserError(f"it {what}: {len(data)} bytes where its header says {wanted}; {whole}")
    body, check = data[: -CHECK.size], CHECK.unpack(data[-CHECK.size :])[0]
    if zlib.crc32(body) != check:
        raise UserError(f"it is damaged: its checksum is not that of its bytes; {whole}")
    text = body[begin - length : begin].decode(errors="replace")
    return Header(num, chunk, fingerprint, text), body[begin:]
