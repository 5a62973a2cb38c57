"""Text of a file as people have it: compressed or not, in any of the usual encodings.

Every fault is one line that says what the file looks like and what to do.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

from marca_env.utils.errors import InputError, one_line

MOST_BYTES = 2**30
"""Most bytes that a file may hold, after decompression."""
_OPENERS: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\x00": lzma.open}
_BYTE_ORDER_MARKS = (  # the marks of UTF-32 begin with those of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_OTHER_KINDS = (
    (b"<!doctype", "a web page; download the file itself"),
    (b"<html", "a web page; download the file itself"),
    (b"<?xml", "XML; export it as CSV"),
    (b"{", "JSON; export it as CSV"),
    (b"[", "JSON; export it as CSV"),
    (b"%pdf", "a PDF; export it as CSV"),
    (b"version https://git-lfs", "a pointer of Git LFS; download the file itself"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook; save it as CSV"),
)
_SHARE_OF_LETTERS = 0.1  # most bytes beyond ASCII in a Western single-byte text, as a share


def read_text(path: Path) -> str:
    """Read a text file: UTF-8, UTF-16, UTF-32 or Windows-1252, plain or in gzip, bzip2, xz or zip.

    Raises:
        InputError: no such file, an archive that is damaged or holds several files, more than :data:`MOST_BYTES`, or
            no text. The message is one line.
    """
    data = _read_bytes(path)
    if not data.strip():
        raise InputError(f"{path}: the file is empty; write it again")
    head = data[:64].lstrip().lower()
    for mark, kind in _OTHER_KINDS:
        if head.startswith(mark):
            raise InputError(f"{path}: looks like {kind}")
    return _decoded(path, data).replace("\r\n", "\n").replace("\r", "\n")


def _read_bytes(path: Path) -> bytes:
    """Return the content of a file, decompressed if it begins as an archive does."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
        if head.startswith(b"PK\x03\x04"):
            return _read_member(path)
        opener = next((o for mark, o in _OPENERS.items() if head.startswith(mark)), Path.open)
        with opener(path, "rb") as file:
            return _read_limited(path, file)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as e:
        raise InputError(f"{path}: cannot be read ({one_line(e)}); it may be cut short: get the file again") from None


def _read_member(path: Path) -> bytes:
    """Return the only file of a zip archive."""
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if not n.endswith("/") and not n.startswith("__MACOSX")]
        if "[Content_Types].xml" in names:
            raise InputError(f"{path}: looks like an Excel workbook; save it as CSV")
        if len(names) != 1:
            raise InputError(f"{path}: an archive of {len(names)} files; unpack it and pass one of them")
        with archive.open(names[0]) as file:
            return _read_limited(path, file)


def _read_limited(path: Path, file: IO[bytes]) -> bytes:
    """Return the content of an open file; stop at the largest size, which an archive does not tell in advance."""
    parts = io.BytesIO()
    while part := file.read(2**22):
        parts.write(part)
        if parts.tell() > MOST_BYTES:
            raise InputError(f"{path}: holds more than {MOST_BYTES >> 20} MiB; pass a shorter file, or Parquet")
    return parts.getvalue()


def _decoded(path: Path, data: bytes) -> str:
    """Return the text of the bytes: by their mark, by the zeros of UTF-16, as UTF-8, else as Windows-1252."""
    for mark, encoding in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return _strict(path, data[len(mark) :], encoding)
    head = data[:1000]
    if b"\x00" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if max(even, odd) < len(head) // 4 or min(even, odd) > max(even, odd) // 2:
            raise InputError(f"{path}: not a text file; export it as CSV in UTF-8")
        return _strict(path, data, "utf-16-be" if even > odd else "utf-16-le")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        if sum(byte > 127 for byte in data[:10_000]) <= _SHARE_OF_LETTERS * min(len(data), 10_000):
            return data.decode("cp1252", errors="replace")
        raise InputError(f"{path}: cannot be read as text ({one_line(error)}); save it as CSV in UTF-8") from None


def _strict(path: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        reason = one_line(error)
        raise InputError(f"{path}: begins as {encoding.upper()}, but is not ({reason}); save it as UTF-8") from None
