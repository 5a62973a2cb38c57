"""Cache of folders: expensive artefacts that several cases share, each made once.

joblib's ``Memory`` is not used: it stores pickled return values, not files, and two processes that need the same
artefact at the same time both compute it.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock


def cached_folder(folder: Path, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
    """Return the folder that ``make`` fills, from the cache if it is there; other processes wait meanwhile.

    Args:
        folder: the cache; made if it is missing.
        name: readable beginning of the folder's name.
        inputs: everything that the content depends on, as plain data; its hash ends the folder's name.
        make: fills the empty folder that it gets. If it fails or is killed, nothing is cached.
    """
    text = json.dumps(dict(inputs), sort_keys=True)
    cached = folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if cached.is_dir():
        return cached
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{cached.name}.lock"):
        if not cached.is_dir():
            partial = folder / f"{cached.name}.part"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            make(partial)
            (partial / "about.json").write_text(text, encoding="utf-8")
            partial.rename(cached)
    return cached
