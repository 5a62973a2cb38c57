"""RLlib's PPO, APPO and IMPALA on environments that others write: they train, or are refused in one line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

ray = pytest.importorskip("ray", reason="needs ray: pip install 'marca-env[conformance]'")
from tests.helpers.foreign_kinds import KINDS, OTHER_KINDS, WORKS, Kind  # noqa: E402
from tests.helpers.foreign_runs import check_kind, say_of, start  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> Iterator[None]:
    start()
    yield
    ray.shutdown()


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.what)
def test_ppo_trains_or_refuses_in_one_line(kind: Kind) -> None:
    check_kind("PPO", kind)


@pytest.mark.parametrize("algo", ["APPO", "IMPALA"])
@pytest.mark.parametrize("name", OTHER_KINDS)
def test_rllibs_asynchronous_algorithms_train(algo: str, name: str) -> None:
    assert say_of(algo, next(kind for kind in KINDS if kind.env == name)) == WORKS
