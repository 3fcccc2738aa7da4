"""A file's bytes as text: unpacked if they are packed, and decoded in the encoding that the bytes indicate."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import string
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from ziggurat.errors import UserError, first_line
from ziggurat.files import refuse_pointer

PACKED = (".gz", ".bz2", ".xz", ".zst", ".zip")
_MARKS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHARACTER = re.compile(rb"[\xc2-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")  # UTF-8's
_ASCII = bytes(range(128))
_MOST_WESTERN = 0.3  # letters beyond ASCII for each one in it: more, and the text is not in a Western language


def format_of(path: Path) -> str:
    """The extension that says how a file is written, without that of its packing: `.csv` of `rows.csv.gz`."""
    name = path.name.lower()
    for ending in PACKED:
        name = name.removesuffix(ending)
    return Path(name).suffix


def unpacked(path: Path) -> bytes:
    """The file's bytes, unpacked where they begin as packed ones do, whatever its name says.

    UserError for a file that cannot be read, a broken archive, or where a package is missing that unpacks it.
    """
    refuse_pointer(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or first_line(error)})") from error
    for mark, unpack in _UNPACKERS.items():
        if content.startswith(mark) and (mark != _BZ2 or content[4:10] == b"1AY&SY"):
            try:
                return unpack(content, path)
            except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
                raise UserError(f"{path}: cannot be unpacked, get it again ({first_line(error)})") from error
    return content


def decoded(content: bytes, place: str, encoding: str | None = None, guess: bool = False) -> tuple[str, str | None]:
    """Text without a byte order mark, and a note for the user about how it was read (None = no note).

    By `encoding` if there is one; else by its mark, else as UTF-8. Where it is none of them and `guess` is allowed, a
    text that looks Western is read as Windows' cp1252. UserError, with the line, for anything that would be garbled.
    """
    if encoding is not None:
        return _decoded_as(content, place, encoding), None
    mark, codec = next(((mark, codec) for mark, codec in _MARKS if content.startswith(mark)), (b"", "utf-8"))
    try:
        text = content[len(mark) :].decode(codec)
    except UnicodeDecodeError as error:
        if guess and not mark and _is_western(content):
            return _western(content, place)
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{place}, line {line}: not valid {codec.upper()}; say what it is, as in --encoding cp1252, or save it "
            "as UTF-8"
        ) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UserError(f"{place}, line {line}: a NUL byte; remove it, or if the file is UTF-16 say --encoding utf-16")
    return text, None


def lines_of(text: str) -> list[str]:
    """Lines as files have them, without their ends; not splitlines(), which also cuts at U+2028 and its like."""
    end = "\n" if "\n" in text else "\r"  # the latter alone is what old Macs wrote
    lines = text.split(end)
    return [line.removesuffix("\r") for line in lines] if end == "\n" else lines


def _decoded_as(content: bytes, place: str, encoding: str) -> str:
    try:
        return content.decode(encoding).removeprefix("\ufeff")
    except LookupError:
        raise UserError(f"--encoding {encoding!r}: is not known; write one such as utf-8, cp1252 or utf-16") from None
    except UnicodeError as error:
        line = content.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise UserError(f"{place}, line {line}: not valid {encoding}; choose another --encoding") from None


def _is_western(content: bytes) -> bool:
    """Whether single letters beyond ASCII stand among many in it, and they are no broken UTF-8."""
    beyond = len(content.translate(None, _ASCII))
    letters = len(content) - len(content.translate(None, string.ascii_letters.encode()))
    in_utf8 = sum(map(len, _CHARACTER.findall(content)))
    return b"\0" not in content and beyond <= _MOST_WESTERN * letters and 2 * in_utf8 < beyond


def _western(content: bytes, place: str) -> tuple[str, str]:
    codec = "cp1252"
    try:
        text = content.decode(codec)
    except UnicodeDecodeError:  # five bytes mean nothing in it
        codec = "latin-1"
        text = content.decode(codec)
    return text, f"{place}: not UTF-8, read as {codec} (Western European); if it is another say --encoding NAME"


def _gzip(content: bytes, path: Path) -> bytes:
    return gzip.decompress(content)


def _bz2(content: bytes, path: Path) -> bytes:
    return bz2.decompress(content)


def _xz(content: bytes, path: Path) -> bytes:
    return lzma.decompress(content)


def _zip(content: bytes, path: Path) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise UserError(f"{path}: holds {len(names)} files; unpack it and name one, or their folder")
        try:
            return archive.read(names[0])
        except (RuntimeError, NotImplementedError) as error:  # a password, or a packing that Python does not know
            raise UserError(f"{path}: cannot be unpacked, unpack it by hand ({error})") from error


def _zstd(content: bytes, path: Path) -> bytes:
    """By whichever package is there: Python before 3.14 has none of its own."""
    try:
        import zstandard
    except ImportError:
        pass
    else:
        try:
            with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as stream:
                return bytes(stream.read())
        except zstandard.ZstdError as error:
            raise ValueError(str(error)) from error
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(f"{path}: reading .zst needs a package: pip install zstandard") from error
    return bytes(pyarrow.input_stream(pyarrow.BufferReader(content), compression="zstd").read())


_BZ2 = b"BZh"
_UNPACKERS: Mapping[bytes, Callable[[bytes, Path], bytes]] = MappingProxyType(
    {b"\x1f\x8b": _gzip, _BZ2: _bz2, b"\xfd7zXZ\0": _xz, b"\x28\xb5\x2f\xfd": _zstd, b"PK\x03\x04": _zip}
)
