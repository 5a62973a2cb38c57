"""Any RLlib algorithm by name or dotted path, and RLlib's own algorithms on a team.

``independent(PPOConfig(), env=…)`` trains one policy per agent, ``shared(PPOConfig(), env=…)`` one for all agents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import TRAINABLE_CLASS

from agents.algorithms.presets import algorithm_name
from agents.rllib.core.algorithms import CONFIGS
from agents.rllib.core.team_config import TeamConfig
from agents.rllib.envs.honest_runner import HonestSingleRunner, HonestTeamRunner
from agents.rllib.envs.lookup import env_name, registered_with_tune
from agents.rllib.envs.single_env import SOURCE, SingleEnv, has_network
from agents.rllib.envs.team_env import TeamEnv, gym_id, make_rllib_env
from agents.rllib.modules.masked_modules import masked_module
from marca_env.utils.argument_types import checked_arguments
from marca_env.utils.errors import InputError, one_line, shown, unknown_option
from marca_env.utils.importing import import_object

SHARED = "shared"
"""Id of the policy that all agents share."""
TEAM_BUFFER = "MultiAgentPrioritizedEpisodeReplayBuffer"
"""RLlib's replay buffer for DQN with several agents."""
OUR_RUNNERS = (None, HonestSingleRunner, HonestTeamRunner)
"""Classes of runners that are replaced; a user's own is kept."""


def algorithm_config(algo: Any) -> AlgorithmConfig:
    """Return a new configuration of an algorithm.

    Args:
        algo: a preset (``QMIX``) or its name in the paper's reference code (``WEIGHTED_QMIX``), one of RLlib's
            algorithms (``PPO``), a name registered with Ray Tune, the dotted path of an algorithm class or a
            configuration (``my_package.my_module.MyQMIX``), or such an object itself. If a preset and an algorithm of
            RLlib have the same name (``IQL``), the preset is used; RLlib's is available by its dotted path.

    Raises:
        InputError: an unknown name, or an object of another type.
    """
    if not isinstance(algo, str):
        return _as_config(algo, shown(algo))
    algo = algorithm_name(algo)
    if algo in CONFIGS:
        return CONFIGS[algo]()
    if algo in ALGORITHMS:
        try:
            return ALGORITHMS[algo]()[1]
        except ImportError as error:
            raise InputError(f"algorithm {algo}: {one_line(error)}") from None
    registered = registered_with_tune(TRAINABLE_CLASS, algo)
    if registered is not None:
        return _as_config(registered, algo)
    if "." not in algo:
        hint = unknown_option("algorithm", algo, (*CONFIGS, *ALGORITHMS))
        raise InputError(f"{hint}; or the dotted path of a user-defined algorithm, such as my_module.MyQMIX")
    return _as_config(import_object(algo, "algorithm"), algo)


def _as_config(algo: Any, name: str) -> AlgorithmConfig:
    if isinstance(algo, type) and issubclass(algo, Algorithm):
        config: Any = algo.get_default_config()  # type: ignore[attr-defined]
        if config.algo_class is not algo:  # a subclass that inherits its parent's configuration
            config.algo_class = algo
        return config
    if isinstance(algo, type) and issubclass(algo, AlgorithmConfig):
        return algo()
    if isinstance(algo, AlgorithmConfig):
        return algo.copy(copy_frozen=False)
    raise InputError(
        f"algorithm {name}: neither an Algorithm nor an AlgorithmConfig, but {type(algo).__name__}; "
        "use the path of such a class, or of a configuration"
    )


@checked_arguments
def set_environment(
    config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None, *, share: bool = False
) -> AlgorithmConfig:
    """Set the environment of any algorithm; RLlib's own algorithms get it through :class:`TeamEnv`.

    Args:
        config: configuration; it is changed in place.
        env: see :func:`agents.rllib.envs.team_env.make_rllib_env`.
        env_config: arguments of the environment.
        share: one policy for all agents (RLlib's own algorithms), or one network for equal agents (presets).

    Returns:
        ``config``.

    Raises:
        InputError: an unknown environment, or action masks that the algorithm does not respect.
    """
    options = dict(env_config or {})
    if isinstance(config, TeamConfig):
        if share:
            config.training(share_parameters=True)
        return config.environment(env, env_config=options)
    probe = make_rllib_env(env, options)
    if not isinstance(probe, MultiAgentEnv):
        if share:
            raise InputError(f"share_parameters: environment {env!r} has one agent; remove the option")
        known = has_network(probe.observation_space)
        probe.close()
        return _set_single_env(config, env, options, known=known)
    probe.close()
    return _set_team_env(config, env, options, share)


def _use_runner(config: AlgorithmConfig, runner: type) -> None:
    """Set the class of the runners, unless the user has one; a failed remote one restarts at once, not in a minute."""
    if config.env_runner_cls in OUR_RUNNERS:
        config.env_runners(env_runner_cls=runner)
    if config.delay_between_env_runner_restarts_s == AlgorithmConfig().delay_between_env_runner_restarts_s:
        config.fault_tolerance(delay_between_env_runner_restarts_s=0.0)


def _set_single_env(config: AlgorithmConfig, env: Any, options: dict[str, Any], *, known: bool) -> AlgorithmConfig:
    """Set a single-agent environment; ``known`` says whether RLlib has a network for its observations."""
    _use_runner(config, HonestSingleRunner)
    registered_id = gym_id(env) if isinstance(env, str) and known else None
    if registered_id is not None:
        return config.environment(registered_id, env_config=options)
    return config.environment(SingleEnv, env_config={SOURCE: env, **options})


@checked_arguments
def independent(config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None) -> AlgorithmConfig:
    """Configure RLlib's algorithm with one policy per agent; action masks are respected."""
    return set_environment(config, env, env_config)


@checked_arguments
def shared(config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None) -> AlgorithmConfig:
    """Configure RLlib's algorithm with one policy for all agents; observations and actions are padded to one size."""
    return set_environment(config, env, env_config, share=True)


def _set_team_env(config: AlgorithmConfig, env: Any, options: dict[str, Any], share: bool) -> AlgorithmConfig:
    team_config = {"env": env, "env_config": options, "shared": share}
    team = TeamEnv(team_config)
    # RLlib's check draws actions without the mask, and TeamEnv checks more
    config.environment(TeamEnv, env_config=team_config, disable_env_checking=True)
    _use_runner(config, HonestTeamRunner)
    _check_names(team.possible_agents, env, share)
    if config.policies == AlgorithmConfig().policies:  # keep a user's mapping
        names = {SHARED} if share else {policy_name(a) for a in team.possible_agents}
        config.multi_agent(policies=names, policy_mapping_fn=shared_policy if share else separate_policy)
    if isinstance(config, DQNConfig) and not team.starts_complete:
        config.env_runners(
            batch_mode="complete_episodes"
        )  # RLlib cannot join parts of an episode before an agent joins
    if isinstance(config, DQNConfig) and config.replay_buffer_config.get("type") == "PrioritizedEpisodeReplayBuffer":
        config.replay_buffer_config = {**config.replay_buffer_config, "type": TEAM_BUFFER}
    if team.masked and config._rl_module_spec is None:  # keep a user's module
        base = config.get_default_rl_module_spec().module_class
        module = masked_module(base)
        if module is None:
            raise InputError(
                f"{config.algo_class.__name__} does not support the action masks of environment {env!r}; "
                "choose PPO, APPO, IMPALA, DQN or a preset, or set a module with masks in the configuration"
            )
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=module))
    team.close()
    return config


def _check_names(agents: list[str], env: Any, share: bool) -> None:
    named: dict[str, str] = {}
    for agent in agents:
        other = named.setdefault(policy_name(agent), agent)
        if other != agent and not share:
            raise InputError(
                f"environment {env_name(env)}: agents {other!r} and {agent!r} have policies of the same name; rename "
                "one, or set share_parameters"
            )


def policy_name(agent: str) -> str:
    """Return an agent's name with only the characters that RLlib allows in the name of a policy."""
    return re.sub(r"[^\w-]", "_", agent)


def separate_policy(agent_id: Any, *args: Any, **kwargs: Any) -> str:
    """Return the agent's own policy (a policy mapping of RLlib)."""
    return policy_name(str(agent_id))


def shared_policy(agent_id: Any, *args: Any, **kwargs: Any) -> str:
    """Return the shared policy (a policy mapping of RLlib)."""
    return SHARED
