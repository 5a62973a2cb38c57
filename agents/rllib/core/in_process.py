"""Runs in one process without ray's servers.

RLlib hands configurations and weights to its environment runners through ray's object store, even where the only
runner is a local one. A ray that is started for that alone takes ten seconds and eight processes. Once
:func:`keep_objects_here` was called, RLlib's modules pass such objects directly while no ray runs.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.rllib.algorithms import algorithm
from ray.rllib.env import env_runner_group


class ObjectStore:
    """The module ``ray`` as RLlib's modules see it: an object that is put where no ray runs is passed as it is.

    Remote calls take values as they take references, so that a runner that is started later gets the same object.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(ray, name)

    def put(self, value: Any, **options: Any) -> Any:
        """Return a reference to an object, or the object itself."""
        return ray.put(value, **options) if ray.is_initialized() else value

    def get(self, reference: Any, **options: Any) -> Any:
        """Return the object, or list of objects, that :meth:`put` returned a reference to."""
        return ray.get(reference, **options) if isinstance(reference, (ray.ObjectRef, list)) else reference


def keep_objects_here() -> None:
    """Let RLlib's local runners work without a running ray; where a ray runs, nothing changes."""
    for module in (algorithm, env_runner_group):
        vars(module)["ray"] = ObjectStore()
