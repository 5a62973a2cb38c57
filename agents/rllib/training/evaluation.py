"""Evaluation: greedy episodes of a checkpoint of any algorithm, or of a policy folder.

Of a preset's checkpoint only the policy folder is read, which is JSON and safetensors. Checkpoints of other algorithms
are pickles: somebody else's is loaded only if the caller trusts it (:mod:`agents.policy.trust`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from agents.policy.allocation_policy import DESCRIPTION, is_own_policy, load_team, policy_folder
from agents.policy.trust import named_code, refuse_code
from agents.rllib.core.algorithms import CONFIGS
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.envs.make_env import ENVS
from agents.rllib.envs.recorded_env import ALGORITHM, ENV, ENV_CONFIG, needs_code, read_environment
from agents.rllib.envs.single_env import SOURCE, SingleEnv
from agents.rllib.envs.team_env import TeamEnv
from agents.rllib.training.algorithm_checkpoints import latest_checkpoint, saved_config
from agents.rllib.training.any_algorithm import set_environment
from agents.rllib.training.flat_options import apply_options
from agents.rllib.training.record_text import make_renderable, record_frames, sub_environments, unwrap
from agents.rllib.training.team_return import TeamReturn, return_of_config, return_of_env
from agents.team.team import Team, TeamSpec
from marca_env.scenario.scenario import Scenario
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line
from marca_env.utils.model_files import read_description

WEIGHTS = ("learner_group", "learner", "rl_module")
"""Path of the modules in RLlib's checkpoints."""
EXPLORATION = ("epsilon", "explore")
"""Options that have no effect on greedy episodes."""
MAX_PARALLEL_EPISODES = 64
"""Maximum number of episodes that a preset plays at the same time."""


@dataclass(frozen=True)
class PlayedEpisodes:
    """Returns and lengths of E played episodes."""

    returns: np.ndarray
    """(E,) float64, the team's return; ``team_reward`` says what it is."""
    lengths: np.ndarray
    """(E,) int64, environment steps."""
    source: Path
    """The checkpoint or policy folder that was played."""
    algorithm: str
    env: str
    team_reward: str
    """Mean or sum over agents, such as ``mean of 2 agents``, or the one reward of the team."""


class CheckpointPlayer:
    """Player of greedy episodes of a checkpoint in its environment.

    Args:
        path: a policy folder, a checkpoint, or the folder of a run.
        env: environment to play in; ``None``: the checkpoint's.
        env_config: arguments added to the environment's.
        options: settings of the configuration by their flat names.
        seed: seed of the environment.
        trust: load a checkpoint that this user did not write, and all code that it names.
        allow_code: dotted paths of the code that a policy folder may name: its mixer, its environment.

    Raises:
        InputError: no checkpoint, no environment, an environment with other shapes, or code that is not allowed.
    """

    @checked_arguments
    def __init__(
        self,
        path: str | Path,
        *,
        env: Any = None,
        env_config: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        seed: int = 0,
        trust: bool = False,
        allow_code: Collection[str] = (),
    ) -> None:
        extra_config = dict(env_config or {})
        self.source = policy_folder(path)
        self._team: Team | None = None
        if (self.source / DESCRIPTION).is_file():
            self._team, description = _load_team(self.source, trust, allow_code)
            config = _team_config(self.source, self._team, description, env, extra_config, trust, allow_code)
        else:
            self.source = latest_checkpoint(self.source)
            config = _rllib_config(self.source, env, extra_config, trust)
        for name in EXPLORATION:
            if name in (options or {}):
                raise InputError(f"{name}: the episodes are greedy, whatever the training explored; leave {name} out")
        config.env_runners(num_env_runners=0, explore=False).debugging(seed=seed)
        apply_options(config, dict(options or {}))
        self.config = config
        self.algorithm = type(config).__name__.removesuffix("Config")
        self.env = _env_name(config)

    def play(self, episodes: int) -> PlayedEpisodes:
        """Play greedy episodes; equal seeds give equal episodes."""
        parallel = min(MAX_PARALLEL_EPISODES, episodes) if isinstance(self.config, TeamConfig) else 1
        runner = self._runner(self.config, parallel)
        team = return_of_env(runner.env) if isinstance(self.config, TeamConfig) else return_of_config(self.config)
        returns, lengths = _sample(runner, episodes, team)
        return PlayedEpisodes(returns[:episodes], lengths[:episodes], self.source, self.algorithm, self.env, team.label)

    def frames(self) -> list[str]:
        """Play one greedy episode and return its text frames, one for the start and one for each step.

        Raises:
            InputError: the environment renders no text.
        """
        config = self.config.copy(copy_frozen=False)
        make_renderable(config)
        try:
            runner = self._runner(config, 1)
        except (TypeError, InputError) as error:
            if "render_mode" not in str(error):
                raise
            raise InputError(f"environment {self.env} renders no text ({one_line(error)}); remove --render") from None
        frames: list[str] = []
        environments = sub_environments(runner.env)
        if environments is None:
            runner.stop()
            raise InputError(f"environment {self.env} renders no text; remove --render")
        for environment in environments:
            record_frames(unwrap(environment), frames, self.env)
        _sample(runner, 1, TeamReturn())
        return frames

    def _runner(self, config: Any, parallel: int) -> Any:
        """Build the algorithm's environment runner with the weights and connectors of the checkpoint."""
        config = config.copy(copy_frozen=False).env_runners(num_envs_per_env_runner=parallel)
        try:
            config.validate()
        except InputError:
            raise
        except ValueError as error:
            raise InputError(one_line(error)) from None
        if isinstance(config, TeamConfig):
            runner = config.env_runner_cls(config=config)
            assert self._team is not None
            weights = _team_weights(self._team, runner)
            runner.set_state({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: weights}})
            return runner
        default_class = MultiAgentEnvRunner if config.is_multi_agent else SingleAgentEnvRunner
        runner = (config.env_runner_cls or default_class)(config=config, worker_index=0)
        _restore(runner, self.source)
        return runner


def _is_checkpoint(path: Path) -> bool:
    return (path / "rllib_checkpoint.json").is_file()


def _load_team(folder: Path, trust: bool, allow_code: Collection[str]) -> tuple[Team, dict[str, Any]]:
    if trust:
        allow_code = [*allow_code, *named_code(read_description(folder, DESCRIPTION).get("preset"))]
    return load_team(folder, trust=allow_code)


def _team_config(
    folder: Path,
    team: Team,
    description: Mapping[str, Any],
    env: Any,
    extra: dict[str, Any],
    trust: bool,
    allow_code: Collection[str],
) -> TeamConfig:
    """Build a preset's configuration for the weights in ``folder``, in ``env`` or the environment of the training."""
    recorded = read_environment(description.get("environment"), str(folder / DESCRIPTION))
    is_trusted = trust or is_own_policy(folder)
    base, name = _config_class(folder, team.preset.name, recorded[ALGORITHM], is_trusted, trust)

    class Played(base):  # type: ignore[misc, valid-type]
        preset_name = base.preset_name if hasattr(base, "preset_name") else name

        def preset(self) -> Any:
            return team.preset

    Played.__name__ = name
    config = Played()
    if env is not None:
        config.environment(env, env_config=extra)
    elif recorded[ENV] is not None:
        if needs_code(recorded[ENV]) and not is_trusted:
            refuse_code(f"{folder / DESCRIPTION}: its environment (or pass --env)", [recorded[ENV]], allow_code)
        if recorded[ENV_CONFIG] is None:
            raise InputError(
                f"{folder}: the arguments of environment {recorded[ENV]} are objects, which a policy folder cannot "
                "hold; pass --env and --config env_config={...}"
            )
        config.environment(recorded[ENV], env_config={**recorded[ENV_CONFIG], **extra})
    elif description.get("scenario") is not None:
        scenario = Scenario.from_dict(description["scenario"])
        config.environment(next(iter(ENVS)), env_config={"scenario": scenario, **extra})
    else:
        raise InputError(f"{folder}: the environment of the training is not recorded; pass --env")
    config.max_episode_steps = recorded["max_episode_steps"] or team.spec.max_steps
    config.team_reward = recorded["team_reward"]
    env_spec = TeamSpec.from_dict(config.team())
    if (env_spec.agents, env_spec.observation_sizes, env_spec.action_sizes) != (
        team.spec.agents,
        team.spec.observation_sizes,
        team.spec.action_sizes,
    ):
        raise InputError(
            f"{folder}: the policy was trained with {team.spec.describe()}, but this environment has "
            f"{env_spec.describe()}; use the environment of the training"
        )
    return config


def _config_class(
    folder: Path, preset: str, recorded: str | None, is_trusted: bool, trust: bool
) -> tuple[type[TeamConfig], str]:
    """Return the class of the configuration, and the name of the algorithm.

    A class of this package is found by its name. A user's is in the checkpoint's pickles, which are read if the
    checkpoint is trusted; otherwise the preset that it was made from plays its weights.
    """
    own = CONFIGS.get(preset, TeamConfig)
    module, _, name = (recorded or "").rpartition(".")
    if not name or module == own.__module__:
        return own, own.__name__.removesuffix("Config") if own is not TeamConfig else preset
    if is_trusted and _is_checkpoint(folder.parent):
        saved = saved_config(folder.parent, trust=trust)
        if isinstance(saved, TeamConfig):
            own = type(saved)
    return own, name.removesuffix("Config")


def _team_weights(team: Team, runner: Any) -> dict[str, Any]:
    tensors = {f"online.{name}": tensor.numpy() for name, tensor in team.state_dict().items()}
    names = runner.module.state_dict()
    return {name: value for name, value in tensors.items() if name in names}


def _rllib_config(checkpoint: Path, env: Any, extra: dict[str, Any], trust: bool) -> Any:
    config = saved_config(checkpoint, trust=trust)
    config.evaluation(evaluation_interval=None)
    team_config = config.env_config if config.env is TeamEnv else None
    if env is None and config.env is None:
        raise InputError(f"{checkpoint}: trained without an environment; pass --env")
    if team_config is not None:
        options = {**team_config["env_config"], **extra} if env is None else extra
        if env is not None:  # the new environment may have other agents and masks
            config._rl_module_spec = None
            config.policies = AlgorithmConfig().policies
        team_env = team_config["env"] if env is None else env
        return set_environment(config, team_env, options, share=team_config["shared"])
    if env is not None:
        return set_environment(config, env, extra)
    config.env_config = {**config.env_config, **extra}
    return config


def _restore(runner: Any, checkpoint: Path) -> None:
    """Load weights from the learner's state, and connectors (such as observation filters) from the runner's state."""
    weights = checkpoint.joinpath(*WEIGHTS)
    module = runner.module
    try:
        if isinstance(module, MultiRLModule):
            for name in list(module.keys()):
                _load(module[name], weights / name)
        elif isinstance(module, RLModule):
            _load(module, weights / DEFAULT_MODULE_ID)
        for name, connector in (
            ("env_to_module_connector", runner._env_to_module),
            ("module_to_env_connector", runner._module_to_env),
        ):
            if (checkpoint / "env_runner" / name).is_dir():
                connector.restore_from_path(checkpoint / "env_runner" / name)
    except (RuntimeError, ValueError, KeyError, OSError) as error:
        raise InputError(
            f"{checkpoint}: its weights do not fit this environment ({one_line(error)[:300]}); "
            "use the environment of the training"
        ) from None


def _load(module: Any, folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(
            f"{folder}: no weights here; use an environment with the same agents as the checkpoint's environment"
        )
    saved_module = RLModule.from_checkpoint(str(folder))
    module.set_state(saved_module.get_state(inference_only=bool(module.inference_only)))


def _sample(runner: Any, episodes: int, team: TeamReturn) -> tuple[np.ndarray, np.ndarray]:
    """Return the team's return and the length of each episode; ``episodes`` or a few more."""
    try:
        samples = runner.sample(num_episodes=episodes, explore=False)
    finally:
        runner.stop()
    if hasattr(samples[0], "columns"):
        returns = np.concatenate([b.columns["reward"].sum(1) for b in samples])
        return returns.astype(float), np.concatenate([b.columns["filled"].sum(1) for b in samples]).astype(np.int64)
    return np.array([_team_return(e, team) for e in samples], float), np.array([len(e) for e in samples], np.int64)


def _team_return(episode: Any, team: TeamReturn) -> float:
    if not hasattr(episode, "agent_episodes"):
        return float(episode.get_return())
    return float(team.combine([e.get_return() for e in episode.agent_episodes.values()]))


def _env_name(config: Any) -> str:
    sources = {TeamEnv: "env", SingleEnv: SOURCE}
    env = config.env_config[sources[config.env]] if config.env in sources else config.env
    return env if isinstance(env, str) else getattr(env, "__name__", repr(env))
