"""Recording of the text frames that an environment renders during an episode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.rllib.core.team_config import TeamConfig
from agents.rllib.envs.team_env import PARALLEL, TeamEnv, make_rllib_env
from agents.team.single_controller import SimultaneousView, TurnBasedView
from marca_env.utils.errors import InputError


def make_renderable(config: Any) -> None:
    """Set the render mode to text; the recommender is built in its PettingZoo form, which can render."""
    if isinstance(config, TeamConfig):
        env, options = config.env, {**config.env_config, "render_mode": "ansi"}
        if env in PARALLEL:
            config.environment(_ParallelEnvFactory(env), env_config={"options": options})
        else:
            config.environment(env, env_config=options)
    elif config.env is TeamEnv:
        team_config = dict(config.env_config)
        config.env_config = {**team_config, "env_config": {**team_config["env_config"], "render_mode": "ansi"}}
    else:
        config.env_config = {**config.env_config, "render_mode": "ansi"}


@dataclass(frozen=True)
class _ParallelEnvFactory:
    env: str

    def __call__(self, options: dict[str, Any]) -> Any:
        return make_rllib_env(self.env, options).par_env


def sub_environments(env: Any) -> list[Any] | None:
    """Return the sub-environments of a runner's environment; ``None`` if it is natively batched."""
    env = getattr(env, "unwrapped", env)
    env = env.env if isinstance(env, (TurnBasedView, SimultaneousView)) else env
    return getattr(env, "envs", None)


def unwrap(env: Any) -> Any:
    """Return the environment inside the wrappers of RLlib, gymnasium and this package."""
    env = getattr(env, "unwrapped", env)
    for name in ("inner", "par_env", "unwrapped"):
        env = getattr(env, name, env)
    return env


def record_frames(env: Any, frames: list[str], name: str) -> None:
    """Append to ``frames`` the text that ``env`` renders after each reset and step.

    Raises:
        InputError: the environment renders no text; ``name`` names it in the message.
    """
    if "ansi" not in (getattr(env, "metadata", None) or {}).get("render_modes", ("ansi",)):
        raise InputError(f"environment {name} renders no text; remove --render")

    def recording(method: Callable[..., Any]) -> Callable[..., Any]:
        def method_then_render(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            try:
                frame = env.render()
            except NotImplementedError:
                frame = None
            if not isinstance(frame, str):
                raise InputError(f"environment {name} renders no text; remove --render")
            frames.append(frame)
            return result

        return method_then_render

    env.reset, env.step = recording(env.reset), recording(env.step)
