"""Ids of public cooperative tasks: how each is built, and what sets it apart from the defaults.

Every other environment works by its own name too; see :mod:`agents.rllib.envs.lookup`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marca_env.scenario.scenario import presets

FORAGING = "lbforaging:Foraging-"
"""Start of the ids of level-based foraging; ``lbforaging:`` may be left out."""


@dataclass(frozen=True)
class Task:
    """A task: where it comes from, and how its rewards and its state are read."""

    about: str
    """One line for ``marca train --env list``."""
    source: str
    """``module:function``, a PettingZoo module, or ``module:id`` of Gymnasium."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Default keyword arguments."""
    team_reward: str | None = None
    """``mean`` or ``sum`` of the agents' rewards, as the field reports the task; ``None``: the default, mean."""
    state_is_observations: bool = False
    """Whether the state is the concatenated observations, so that it need not be computed again."""


_GAMES = "agents.tasks.matrix_games:"
_MPE2 = {
    "simple_spread_v3": "three agents cover three landmarks (mpe2)",
    "simple_speaker_listener_v4": "a speaker names the landmark to which a listener goes (mpe2)",
    "simple_reference_v3": "two agents, each knows the landmark of the other (mpe2)",
    "simple_tag_v3": "three agents chase a fourth; rewards are opposed, not cooperative (mpe2)",
}
_RECOMMENDER = "marca_env.envs.batched_env:batched_env"


def _suite_task(about: str, scenario: str, **options: Any) -> Task:
    """Return a task of the suite: a scenario, its revenue less computation at its prices, and strict masks."""
    return Task(about, _RECOMMENDER, {"scenario": scenario, "reward": "lagrangian", "on_illegal": "error", **options})


SUITE: dict[str, Task] = {
    "default-v0": _suite_task("the published cascade, one request an episode", "default", prices=(9.07, 2.03)),
    "deadline-v0": _suite_task("the published cascade with a latency limit: coordination", "deadline-v0"),
    "handover-v0": _suite_task("stages that each see what the others cannot: decentralised information", "handover-v0"),
    "congestion-v0": _suite_task("windows whose load outlasts a request: a long horizon", "congestion-v0"),
    "fleet-v0": _suite_task("many sites that decide at once: a large joint action", "fleet-v0"),
    "llm-cascade-v0": _suite_task("real questions, a cascade of language models and their prices", "llm-cascade-v0"),
}
"""Id → task of the suite that ``marca bench run tasks`` compares methods on. The prices λ of ``default-v0`` fit its
budgets at the mean traffic of a generated day; those of the others are in their scenarios."""


def available_suite() -> tuple[str, ...]:
    """Return the ids of the suite whose scenario comes with this version."""
    known = presets()
    return tuple(name for name, task in SUITE.items() if task.options["scenario"] in known)


TASKS: dict[str, Task] = {
    **{name: SUITE[name] for name in available_suite()},
    "games/climbing-v0": Task("climbing game, 3×3 pay-off, best return 11", f"{_GAMES}climbing_game"),
    "games/penalty-v0": Task(
        "penalty game, 3×3 pay-off, best return 10; option penalty (−10)", f"{_GAMES}penalty_game"
    ),
    "games/two_step-v0": Task("two-step game: VDN finds 7, QMIX 8", f"{_GAMES}TwoStepGame"),
    "games/matrix_3x3-v0": Task("3×3 pay-off of QTRAN, best return 8", f"{_GAMES}MatrixGame"),
    **{f"mpe2.{name}": Task(about, f"mpe2.{name}", state_is_observations=True) for name, about in _MPE2.items()},
    f"{FORAGING}5x5-2p-1f-v3": Task(
        "level-based foraging; any id of lbforaging, such as Foraging-8x8-2p-2f-coop-v3",
        f"{FORAGING}5x5-2p-1f-v3",
        team_reward="sum",
    ),
}
"""Id → task; :func:`find_task` knows more ids of level-based foraging."""


def find_task(name: str) -> Task | None:
    """Return the task of an id; ``None`` if the id is not one of a task.

    Any id of lbforaging is a task, with or without ``lbforaging:``. ``mpe2.`` may be left out too.
    """
    foraging = name if name.startswith("lbforaging:") else f"lbforaging:{name}"
    if foraging.startswith(FORAGING):
        return Task(f"level-based foraging, {name}", foraging, team_reward="sum")
    return TASKS.get(name) or TASKS.get(f"mpe2.{name}")


def describe_tasks() -> dict[str, str]:
    """Return the ids with one line about each."""
    return {name: task.about for name, task in TASKS.items()}
