"""Calls of environments whose faults are told on one line, with agent, step and environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agents.rllib.envs.agent_data import is_mapping
from marca_env.utils.errors import InputError, one_line

_SHARED_KEYS = ("__all__", "__common__")
"""Keys of RLlib's dicts that are no agents."""
_MOST_TEXT = 160
"""Length of an error's own text in a message."""


class SimulatorError(InputError):
    """An environment raised an error; the message names step, actions and environment, ``__cause__`` is the error."""


class StepResult(NamedTuple):
    """What ``step`` of an environment returns, by agent."""

    observations: Mapping[str, Any]
    rewards: Mapping[str, Any]
    terminated: Mapping[str, Any]
    truncated: Mapping[str, Any]
    infos: Mapping[str, Any]


class EnvWatch:
    """Calls of an environment, and checks of the form of what it returns.

    Args:
        env: one of the environments that are called.
        agents: names of all possible agents.
    """

    def __init__(self, env: Any, agents: Sequence[str]) -> None:
        self.name, self.agents, self.steps = env_name(env), tuple(agents), 0
        self._known = {*agents, *_SHARED_KEYS}
        parameters = inspect.signature(env.reset).parameters
        self._takes_seed = "seed" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())

    def reset(self, env: Any, seed: int | None = None) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """Start an episode and return observations and infos by agent.

        Raises:
            SimulatorError: the environment raised an error.
            InputError: it did not return two mappings, or unknown agents.
        """
        try:
            result = env.reset(seed=seed) if self._takes_seed else env.reset()
        except InputError:
            raise
        except Exception as error:
            raise self.failed(f"reset() of {self.name}", error) from error
        if not _is_tuple_of_mappings(result, 2):
            raise InputError(f"{self.name}: reset() must return (observations, infos), both by agent")
        self.check_agents(result[0], "observations")
        return result

    def step(self, env: Any, actions: dict[str, Any]) -> StepResult:
        """Take one step.

        Raises:
            SimulatorError: the environment raised an error.
            InputError: it did not return five mappings, or unknown agents.
        """
        try:
            result = env.step(actions)
        except InputError:
            raise
        except Exception as error:
            raise self.failed(f"step {self.steps} of {self.name} with actions {self._brief(actions)}", error) from error
        if isinstance(result, tuple) and len(result) == 4:
            raise InputError(
                f"{self.name}: step() returned four values, as in old versions of gym; return (observations, rewards, "
                "terminations, truncations, infos)"
            )
        if not _is_tuple_of_mappings(result, 5):
            raise InputError(
                f"{self.name}: step() must return (observations, rewards, terminations, truncations, infos), all by "
                f"agent; it returned {_form(result)}"
            )
        checked = StepResult(*result)
        for name, part in zip(StepResult._fields[:4], checked, strict=False):
            self.check_agents(part, name)
        return checked

    @staticmethod
    def failed(where: str, error: Exception) -> SimulatorError:
        """Return the one line about an error of an environment."""
        fault = f"{type(error).__name__}: {one_line(error)[:_MOST_TEXT]}".rstrip(": ")
        return SimulatorError(f"{where} failed: {fault}; fix the environment")

    def checked(self, agent: str, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of :mod:`agents.rllib.envs.agent_data` and add agent, step and environment to its faults.

        Raises:
            InputError: the function found a fault.
        """
        try:
            return function(*args)
        except InputError as error:
            raise self.fault(agent, error) from error.__cause__

    def _brief(self, actions: Mapping[str, Any]) -> str:
        """Return actions as a short text, in the order of the agents; RLlib's order differs between processes."""
        ordered = {a: actions[a] for a in (*self.agents, *actions) if a in actions}
        text = str({a: x.item() if isinstance(x, np.generic) else x for a, x in ordered.items()})
        return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"

    def check_agents(self, names: Collection[str], what: str) -> None:
        """Refuse agents that are not among the possible ones, for instance because they were renamed.

        Raises:
            InputError: an unknown agent.
        """
        if self._known.issuperset(names):
            return
        unknown = next(n for n in names if n not in self._known)
        raise InputError(
            f"step {self.steps} of {self.name}: unknown agent {unknown!r} in {what}; possible_agents are "
            f"{', '.join(map(repr, self.agents))} and must stay so"
        )

    def fault(self, agent: str, fault: InputError | str) -> InputError:
        """Return a fault of :mod:`agents.rllib.envs.agent_data` with agent, step and environment."""
        return InputError(f"agent {agent!r} at step {self.steps} of {self.name}: {fault}; fix the environment")


def env_name(env: Any) -> str:
    """Return the name that an environment states in its metadata, or its class."""
    inner = getattr(env, "unwrapped", env)
    stated = (getattr(inner, "metadata", None) or {}).get("name")
    return stated if isinstance(stated, str) else type(inner).__name__


def _is_tuple_of_mappings(result: Any, length: int) -> bool:
    return isinstance(result, tuple) and len(result) == length and all(map(is_mapping, result))


def _form(result: Any) -> str:
    if not isinstance(result, tuple):
        return f"a {type(result).__name__}"
    return f"({', '.join(type(part).__name__ for part in result)})"
