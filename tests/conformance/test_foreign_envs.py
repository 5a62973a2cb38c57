"""RLlib's PPO on every kind of environment that others write: it trains, or is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

ray = pytest.importorskip("ray", reason="needs ray: pip install 'marca-env[conformance]'")
from tests.helpers.foreign_kinds import KINDS, Kind  # noqa: E402
from tests.helpers.foreign_runs import check_kind, start  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> Iterator[None]:
    start()
    yield
    ray.shutdown()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.what)
def test_ppo_trains_or_refuses_in_one_line(kind: Kind) -> None:
    check_kind("PPO", kind)
