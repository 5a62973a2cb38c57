"""Environments as others write them: each trains for two iterations, or is refused in one line with its place."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import ray

from tests.helpers.foreign_kinds import KINDS, OTHER_KINDS, WORKS, Kind
from tests.helpers.foreign_runs import check_kind, say, say_of, start

PPO_KINDS = [kind for k, kind in enumerate(KINDS) if kind.ppo is not None or k % 5 == 0]
"""Kinds of which PPO says something else than QMIX, and a fifth of the others."""


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> Iterator[None]:
    start()
    yield
    ray.shutdown()


def test_the_table_has_at_least_sixty_kinds() -> None:
    assert len({kind.what for kind in KINDS}) == len(KINDS) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.what)
def test_environments_train_or_are_refused_in_one_line(kind: Kind) -> None:
    check_kind("QMIX", kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", PPO_KINDS, ids=lambda k: k.what)
def test_ppo_trains_or_refuses_in_one_line(kind: Kind) -> None:
    """Every kind is in the conformance tests."""
    check_kind("PPO", kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "name"), [*(("DQN", name) for name in OTHER_KINDS), ("APPO", "Leaver"), ("IMPALA", "DictObservations")]
)
def test_rllibs_other_algorithms_train_too(algo: str, name: str) -> None:
    """APPO and IMPALA on the other kinds are in the conformance tests."""
    assert say_of(algo, next(kind for kind in KINDS if kind.env == name)) == WORKS


@pytest.mark.slow
@pytest.mark.parametrize("name", ["RaisesInStep", "WrongShape"])
def test_a_fault_on_a_remote_runner_ends_the_run_with_its_message(name: str) -> None:
    """RLlib alone would restart the runner for ever and count iterations without data."""
    ray.shutdown()
    start(3)
    kind = next(kind for kind in KINDS if kind.env == name)
    assert kind.ppo is None
    assert kind.qmix in say("PPO", kind.path, num_env_runners=1)
