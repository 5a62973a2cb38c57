"""Import of a user's object by its dotted path."""

from __future__ import annotations

import importlib
from typing import Any

from marca_env.utils.errors import InputError, one_line, unknown_option


def import_object(path: str, kind: str, separator: str = ".") -> Any:
    """Import the object at a dotted path; ``kind`` names it in error messages.

    Args:
        path: ``package.module.Name``; with ``separator`` ":" it is ``package.module:name``.
        kind: what it is, such as ``algorithm``.
        separator: character between the module and the name.

    Raises:
        InputError: an unknown module, an error in it, or an unknown name in it.
    """
    module_path, found, name = path.rpartition(separator)
    if not found or not module_path or not name:
        raise InputError(f"{kind} {path!r}: write it as my_module{separator}name")
    try:
        module = importlib.import_module(module_path)
    except ImportError as error:
        raise InputError(
            f"{kind} {path}: {one_line(error)}; use a module in the current directory or in the Python environment"
        ) from error
    except Exception as error:  # an error in the user's module
        raise InputError(
            f"{kind} {path}: importing {module_path} failed: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not hasattr(module, name):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise InputError(f"{kind} {path}: {unknown_option(f'name in {module_path}', name, names)}")
    return getattr(module, name)
