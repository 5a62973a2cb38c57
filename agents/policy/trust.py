"""Trust in artefacts that others may have written: signatures of one's checkpoints, and code that an artefact names.

Loading a checkpoint of RLlib executes the code in its pickles. Only checkpoints of this user are loaded without being
asked: each is signed (HMAC-SHA256 over its manifest) with a key that only this user can read. A policy folder holds no
pickle, but may name a class by its dotted path; such a path is imported only if the caller allows it by name.

The sums of a manifest guard against damage, not against malice: whoever changes a file can change its sum. The
signature guards against both, as long as the key stays private.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from marca_env.utils.errors import InputError, one_line
from marca_env.utils.files import read_json, temporary_path

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
"""File of a checkpoint with the sizes and sums of its files, and the signature."""
KEY_VARIABLE = "MARCA_KEY"
"""Environment variable with the path of the key file."""
_KEY_BYTES = 32
_PURPOSE = b"marca-env checkpoint 1\n"
_NO_CODE = ("name",)
"""Texts of a preset that are never imported."""
_process_key: list[bytes] = []
"""Key of this process alone, where no file can hold one."""


def key_file() -> Path:
    """Return the path of the user's key: ``MARCA_KEY``, or ``marca-env/signing.key`` in the user's state folder."""
    if given := os.environ.get(KEY_VARIABLE):
        return Path(given).expanduser()
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "marca-env" / "signing.key"


def sign(files: Mapping[str, Any]) -> str:
    """Return the signature of a manifest's files with the user's key, which is made at first use.

    Where no key can be read or written, a key of this process signs, with a warning: another process then needs to be
    told that it may load the checkpoint.
    """
    try:
        key = _read_key() or _make_key()
    except (InputError, OSError, RuntimeError) as error:
        if not _process_key:
            _process_key.append(secrets.token_bytes(_KEY_BYTES))
            logger.warning(
                "%s; set %s to a file that can be written. Until then, --resume of this run in another process needs "
                "--trust",
                f"no key to sign checkpoints with ({one_line(error)})",
                KEY_VARIABLE,
            )
        key = _process_key[0]
    return _signature(key, files)


def is_own(checkpoint: str | Path) -> bool:
    """Return whether this user wrote a checkpoint: its signature is right, and no file was added.

    The sums in the manifest are not compared with the files: see :func:`agents.policy.checkpoints.find_fault`.

    Raises:
        InputError: other users can read the key.
    """
    checkpoint = Path(checkpoint)
    try:
        manifest = read_json(checkpoint / MANIFEST)
        files, signature = manifest["files"], str(manifest["signature"])
        listed = set(files)
    except (InputError, KeyError, TypeError):
        return False
    if not is_signed(files, signature):
        return False
    there = {p.relative_to(checkpoint).as_posix() for p in checkpoint.rglob("*") if not p.is_dir() or p.is_symlink()}
    return there - {MANIFEST} == listed


def is_signed(files: Mapping[str, Any], signature: str) -> bool:
    """Return whether a signature is that of :func:`sign` with the key of this user or this process.

    Raises:
        InputError: other users can read the key.
    """
    try:
        keys = [*filter(None, [_read_key()]), *_process_key]
    except (OSError, RuntimeError):
        keys = list(_process_key)
    return any(hmac.compare_digest(_signature(key, files).encode(), signature.encode()) for key in keys)


def named_code(preset: Any) -> list[str]:
    """Return the dotted paths in the description of a preset; whatever loads it would import them."""
    if not isinstance(preset, Mapping):
        return []
    return sorted({text for key, value in preset.items() if key not in _NO_CODE for text in _dotted(value)})


def _dotted(value: Any) -> Iterator[str]:
    """Yield the texts in plain data that a path of a class or function could be."""
    if isinstance(value, str):
        if "." in value or ":" in value:
            yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _dotted(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _dotted(inner)


def refuse_code(path: str | Path, names: Collection[str], allowed: Collection[str]) -> None:
    """Refuse code that an artefact names, unless the caller allows it by name; nothing is imported.

    Args:
        path: the artefact, for the message.
        names: dotted paths in it.
        allowed: dotted paths that the caller allows.

    Raises:
        InputError: a path that is not allowed; the message says what to pass.
    """
    if isinstance(allowed, (str, bytes)):
        raise InputError(f"trust is {allowed!r}; give a list of dotted paths, such as [{allowed!r}]")
    for name in names:
        if name not in allowed:
            raise InputError(
                f"{path}: names the code {name!r}, which loading it would execute; if you trust that code, allow it by "
                f"name: --allow-code {name} (in Python: trust=[{name!r}])"
            )


def is_own_file(checkpoint: str | Path, name: str) -> bool:
    """Return whether this user wrote a file of a checkpoint and it is as it was written."""
    checkpoint = Path(checkpoint)
    if not is_own(checkpoint):
        return False
    entry = read_json(checkpoint / MANIFEST)["files"].get(name)
    try:
        content = (checkpoint / name).read_bytes()
    except OSError:
        return False
    return isinstance(entry, Mapping) and entry.get("sha256") == hashlib.sha256(content).hexdigest()


def _signature(key: bytes, files: Any) -> str:
    text = json.dumps(files, sort_keys=True, separators=(",", ":"))
    return hmac.new(key, _PURPOSE + text.encode(), hashlib.sha256).hexdigest()


def _read_key() -> bytes | None:
    """Return the user's key; ``None`` if there is none yet.

    Raises:
        InputError: others can read it, or it is no key.
    """
    path = key_file()
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with os.fdopen(descriptor, "rb") as file:
        about = os.fstat(file.fileno())
        text = file.read(4 * _KEY_BYTES)
    if os.name == "posix" and (about.st_uid != os.getuid() or stat.S_IMODE(about.st_mode) & 0o077):
        raise InputError(f"{path}: other users can read or own this key; make it yours alone: chmod 600 {path}")
    try:
        key = bytes.fromhex(text.decode("ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise InputError(f"{path}: not a key of this package; remove it, and a new one is made")
    return key


def _make_key() -> bytes:
    """Make the user's key; of two processes that do so at once, the first one's key is kept."""
    path = key_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(_KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    key = _read_key()
    if key is None:
        raise InputError(f"{path}: the key vanished while it was made")
    return key
