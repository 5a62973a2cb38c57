"""Watch the policy folder and load each new version beside the one that serves.

A folder is watched, and no path is sent by clients: every process and replica follows by itself, nobody on the network
can name a file, and a policy that `marca train` is still writing, or that is damaged, is refused while the old one goes
on. For the folder of a run this is its newest complete checkpoint.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection
from pathlib import Path

from agents.policy.allocation_policy import DESCRIPTION, AllocationPolicy, policy_folder
from benchmarks.serving.decider import Decider
from benchmarks.serving.service import DecisionService
from benchmarks.serving.static_rule import BEST, StaticRule, make_static_rule
from marca_env.integration.feature_coding import FILE as FEATURES_FILE
from marca_env.integration.feature_coding import FeatureCoder
from marca_env.utils.errors import InputError, one_line

_DIGITS = 12
logger = logging.getLogger("marca.serve")


def policy_version(path: str | Path) -> str:
    """Return the name of a policy's version: digits of the sum of its description, which names its weights.

    Raises:
        InputError: there is no policy.
    """
    folder = policy_folder(path)
    try:
        return hashlib.sha256((folder / DESCRIPTION).read_bytes()).hexdigest()[:_DIGITS]
    except OSError:
        raise InputError(f"{folder}: no {DESCRIPTION}; pass the folder of a policy, a checkpoint or a run") from None


def load_decider(
    path: str | Path,
    *,
    features: str | Path | None = None,
    static: str | StaticRule = BEST,
    trust: Collection[str] = (),
    warm: bool = False,
) -> tuple[Decider, str]:
    """Return a decider with the policy of a folder, and the name of its version.

    Args:
        path: folder of a policy, a checkpoint or a run.
        features: coding of raw features, its file or its folder; ``None``: ``features.json`` of the policy folder if
            there is one, else requests hold codes.
        static: the static rule, or what :func:`make_static_rule` makes one of.
        trust: dotted paths of the code that the policy may name.
        warm: compute the values of all states before it is used.

    Raises:
        InputError: policy, coding and static rule are missing, damaged or do not fit together.
    """
    version = policy_version(path)
    policy = AllocationPolicy.load(path, trust=trust)
    own = policy_folder(path) / FEATURES_FILE
    source = features if features is not None else own if own.is_file() else None
    coder = None if source is None else FeatureCoder.load(source)
    rule = static if isinstance(static, StaticRule) else make_static_rule(policy, static)
    decider = Decider(policy, policy.scenario, rule, coder)
    if warm:
        decider.warm()
    return decider, version


class PolicyWatch:
    """Looks for a new version of the policy; call it again and again.

    Args:
        path: folder of a policy, a checkpoint or a run.
        load: returns the decider of the folder with a static rule, and its version; the rule stays that of the start.
        service: gets each new version.
    """

    def __init__(self, path: Path, load: Callable[[StaticRule], tuple[Decider, str]], service: DecisionService) -> None:
        self._path, self._load, self._service = path, load, service
        self._refused = ""

    def __call__(self) -> None:
        """Load a new version if there is one; a version that was refused is not tried again."""
        try:
            version = policy_version(self._path)
        except InputError:
            return  # the folder is being replaced
        if version in (self._service.version, self._refused):
            return
        try:
            decider, loaded = self._load(self._service.decider.static_rule)
            self._service.swap(decider, loaded)
        except Exception as error:  # the old version goes on, whatever the new one is
            self._refused = version
            self._service.metrics.swaps.labels("refused").inc()
            logger.error("policy %s refused, %s goes on: %s", version, self._service.version, one_line(error, 300))
