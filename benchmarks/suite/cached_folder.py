"""What is dear to make and shared by many cases, made once and kept in a folder under a fingerprint of what it is."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def kept(folder: Path, name: str, about: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """The folder that ``make`` filled, now or before; whoever asks for it meanwhile, in another process, waits.

    Args:
        folder: where things are kept; made if it is missing.
        name: for whoever looks into it.
        about: all that the content depends on, as plain data; another value is another folder.
        make: fills the empty folder that it is given. Where it fails, or is killed, nothing is kept.
    """
    from filelock import FileLock

    text = json.dumps(dict(about), sort_keys=True)
    home = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if home.is_dir():
        return home
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{home.name}.lock"):
        if not home.is_dir():
            partial = folder / f"{home.name}.part"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            (partial / "about.json").write_text(text, encoding="utf-8")
            partial.rename(home)
    return home
