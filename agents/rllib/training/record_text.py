"""Text of an episode as it is played: environments are asked for it, and watched."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from agents.rllib.core.config import TeamConfig
from agents.rllib.envs.team_env import PARALLEL, TeamEnv, make_one
from agents.team.single_controller import JointView, SequentialView
from marca_env.utils.errors import InputError


def make_renderable(config: Any) -> None:
    """Ask the environment for text; ours is taken in its PettingZoo form, which renders."""
    if isinstance(config, TeamConfig):
        env, options = config.env, {**config.env_config, "render_mode": "ansi"}
        if env in PARALLEL:
            config.environment(_Maker(env), env_config={"options": options})
        else:
            config.environment(env, env_config=options)
    elif config.env is TeamEnv:
        inside = dict(config.env_config)
        config.env_config = {**inside, "env_config": {**inside["env_config"], "render_mode": "ansi"}}
    else:
        config.env_config = {**config.env_config, "render_mode": "ansi"}


@dataclass(frozen=True)
class _Maker:
    env: str

    def __call__(self, options: dict[str, Any]) -> Any:
        return make_one(self.env, options).par_env


def side_by_side(env: Any) -> list[Any] | None:
    """The environments that a runner's environment steps; ``None`` if it is one whole."""
    env = getattr(env, "unwrapped", env)
    env = env.env if isinstance(env, (JointView, SequentialView)) else env
    return getattr(env, "envs", None)


def innermost(env: Any) -> Any:
    """The environment inside RLlib's, gymnasium's and our wrappers."""
    env = getattr(env, "unwrapped", env)
    for name in ("inner", "par_env", "unwrapped"):
        env = getattr(env, name, env)
    return env


def watch(env: Any, frames: list[str], name: str) -> None:
    """Note what ``env`` renders after each reset and step."""
    if "ansi" not in (getattr(env, "metadata", None) or {}).get("render_modes", ("ansi",)):
        raise InputError(f"environment {name} renders no text; leave --render out")

    def noting(act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **kwargs: Any) -> Any:
            result = act(*args, **kwargs)
            try:
                frame = env.render()
            except NotImplementedError:
                frame = None
            if not isinstance(frame, str):
                raise InputError(f"environment {name} renders no text; leave --render out")
            frames.append(frame)
            return result

        return acted

    env.reset, env.step = noting(env.reset), noting(env.step)
