"""Environments as others write them: each trains for two iterations, or is refused in one line with its place."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator

import pytest
import ray

from tests.helpers.foreign_kinds import KINDS, WORKS, Kind
from tests.helpers.foreign_runs import say, say_of, start


@pytest.fixture(scope="module", autouse=True)
def _running_ray() -> Iterator[None]:
    start()
    yield
    ray.shutdown()


def test_the_table_has_at_least_sixty_kinds() -> None:
    assert len({kind.what for kind in KINDS}) == len(KINDS) >= 60


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["QMIX", "PPO"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.what)
def test_environments_train_or_are_refused_in_one_line(kind: Kind, algo: str) -> None:
    if kind.needs is not None and importlib.util.find_spec(kind.needs) is None:
        pytest.skip(f"needs {kind.needs}")
    said, expected = say_of(algo, kind), kind.expected(algo)
    assert expected in said
    if expected != WORKS:
        assert "\n" not in said
        assert len(said) <= 300
        place = kind.env.rpartition(".")[2]
        assert place in said or "agent" in said or "option" in said


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["DQN", "APPO", "IMPALA"])
@pytest.mark.parametrize("name", ["LateJoiner", "Leaver", "DictObservations", "MaskInInfos", "Aec", "TupleGym"])
def test_rllibs_other_algorithms_train_too(algo: str, name: str) -> None:
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
