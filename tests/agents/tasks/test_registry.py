"""Public tasks are found by their ids."""

from __future__ import annotations

import pytest

from agents.tasks.registry import TASKS, describe_tasks, find_task


def test_every_task_has_one_line():
    about = describe_tasks()
    assert set(about) == set(TASKS)
    assert all(line and "\n" not in line and len(line) < 100 for line in about.values())


@pytest.mark.parametrize("name", ["lbforaging:Foraging-8x8-2p-2f-coop-v3", "Foraging-8x8-2p-2f-coop-v3"])
def test_any_id_of_level_based_foraging_is_a_task(name):
    task = find_task(name)
    assert task is not None
    assert (task.source, task.team_reward) == ("lbforaging:Foraging-8x8-2p-2f-coop-v3", "sum")


def test_the_package_may_be_left_out():
    assert find_task("simple_spread_v3") is TASKS["mpe2.simple_spread_v3"]
    assert find_task("CartPole-v1") is None
