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


def csv_layout(path: Path, separator: str) -> dict[str, str]:
    """Return encoding, separator and decimal mark of a large text file, as options of ``pandas.read_csv``.

    Args:
        path: the file, not compressed; only its beginning is read.
        separator: the usual one; another is used if the first line holds it and not the usual one.

    Raises:
        InputError: no text.
    """
    with path.open("rb") as file:
        head = file.read(2**16)
    encoding, mark = _encoding(path, head, whole=len(head) < 2**16)
    line = head[mark:].decode(encoding, errors="ignore").lstrip().partition("\n")[0]
    if separator not in line:
        separator = next((other for other in (";", "\t") if other in line), separator)
    names = {"utf-8": "utf-8-sig", "utf-16-le": "utf-16", "utf-16-be": "utf-16"} if mark else {}
    return {
        "encoding": names.get(encoding, encoding),
        "sep": separator,
        "decimal": "," if separator == ";" else ".",
    }


def _decoded(path: Path, data: bytes) -> str:
    """Return the text of the bytes."""
    encoding, mark = _encoding(path, data[:100_000], whole=len(data) <= 100_000)
    try:
        return data[mark:].decode(encoding, errors="replace" if encoding == "cp1252" else "strict")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: cannot be read as {encoding.upper()} ({one_line(error)}); save it as UTF-8"
        ) from None


def _encoding(path: Path, head: bytes, whole: bool) -> tuple[str, int]:
    """Return the encoding of a file and the length of its byte order mark.

    It is told by the mark, by the zeros of UTF-16, else it is UTF-8, else Windows-1252.

    Args:
        path: for messages.
        head: the beginning of the file.
        whole: whether that is all.
    """
    for mark, encoding in _BYTE_ORDER_MARKS:
        if head.startswith(mark):
            return encoding, len(mark)
    if b"\x00" in head[:1000]:
        even, odd = head[:1000:2].count(0), head[1:1000:2].count(0)
        if max(even, odd) < len(head[:1000]) // 4 or min(even, odd) > max(even, odd) // 2:
            raise InputError(f"{path}: not a text file; export it as CSV in UTF-8")
        return ("utf-16-be" if even > odd else "utf-16-le"), 0
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError as error:
        if sum(byte > 127 for byte in head) <= _SHARE_OF_LETTERS * len(head):
            return "cp1252", 0
        raise InputError(f"{path}: cannot be read as text ({one_line(error)}); save it as CSV in UTF-8") from None
    return "utf-8", 0
