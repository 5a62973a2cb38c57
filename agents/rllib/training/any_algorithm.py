"""Any RLlib algorithm by name or dotted path, and RLlib's own algorithms on a team.

``independent(PPOConfig(), env=…)`` trains a policy per agent, ``shared(PPOConfig(), env=…)`` one for all.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.registry import ALGORITHMS
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import TRAINABLE_CLASS, _global_registry

from agents.rllib.core.config import CONFIGS, TeamConfig
from agents.rllib.envs.team_env import TeamEnv, gym_id, make_one
from agents.rllib.modules.masked_modules import masked_module
from marca_env.utils.errors import InputError, one_line, unknown_option

SHARED = "shared"
"""Id of the policy that all agents use together."""
TEAM_BUFFER = "MultiAgentPrioritizedEpisodeReplayBuffer"


def algorithm_config(algo: Any) -> AlgorithmConfig:
    """A fresh configuration of an algorithm.

    Args:
        algo: a preset (``QMIX``), one of RLlib's algorithms (``PPO``), a name registered with Ray Tune, the dotted path
            of an algorithm class or a configuration (``my_package.my_module.MyQMIX``), or such an object itself. Where
            a preset and RLlib share a name (``IQL``) the preset is meant; RLlib's has its path.

    Raises:
        InputError: nothing of that name, or something else.
    """
    if not isinstance(algo, str):
        return _as_config(algo, repr(algo))
    if algo in CONFIGS:
        return CONFIGS[algo]()
    if algo in ALGORITHMS:
        try:
            return ALGORITHMS[algo]()[1]
        except ImportError as error:
            raise InputError(f"algorithm {algo}: {one_line(error)}") from None
    registered = _registered(algo)
    if registered is not None:
        return _as_config(registered, algo)
    if "." not in algo:
        hint = unknown_option("algorithm", algo, (*CONFIGS, *ALGORITHMS))
        raise InputError(f"{hint}; or the dotted path of your own, such as my_module.MyQMIX")
    return _as_config(import_path(algo, "algorithm"), algo)


def import_path(path: str, what: str) -> Any:
    """The object at a dotted path.

    Raises:
        InputError: no such module, or no such name in it; the message says which, and where modules are looked for.
    """
    module, _, name = path.rpartition(".")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"{what} {path}: {one_line(error)}; modules are looked for in the current directory and in the environment"
        ) from error
    except Exception as error:  # a fault in the user's own module
        raise InputError(
            f"{what} {path}: importing {module} failed: {type(error).__name__}: {one_line(error)}"
        ) from error
    if not hasattr(found, name):
        names = [n for n in vars(found) if not n.startswith("_")]
        raise InputError(f"{what} {path}: {unknown_option(f'name in {module}', name, names)}")
    return getattr(found, name)


def _as_config(found: Any, name: str) -> AlgorithmConfig:
    if isinstance(found, type) and issubclass(found, Algorithm):
        config: Any = found.get_default_config()  # type: ignore[attr-defined]
        if config.algo_class is not found:  # a subclass that inherits its parent's configuration
            config.algo_class = found
        return config
    if isinstance(found, type) and issubclass(found, AlgorithmConfig):
        return found()
    if isinstance(found, AlgorithmConfig):
        return found.copy(copy_frozen=False)
    raise InputError(
        f"algorithm {name}: neither an Algorithm nor an AlgorithmConfig, but {type(found).__name__}; "
        "give the path of such a class, or of a configuration"
    )


def _registered(name: str) -> Any:
    return _global_registry.get(TRAINABLE_CLASS, name) if _global_registry.contains(TRAINABLE_CLASS, name) else None


def on_environment(
    config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None, *, share: bool = False
) -> AlgorithmConfig:
    """Set the environment of any algorithm: presets drive it as it is, RLlib's own algorithms through :class:`TeamEnv`.

    Args:
        config: changed in place.
        env: see :func:`agents.rllib.envs.team_env.make_one`.
        env_config: arguments of the environment.
        share: one policy for all agents (RLlib's own algorithms on a team), or one network for those of a preset that
            have equal spaces.

    Returns:
        ``config``.

    Raises:
        InputError: an unknown environment, or one with action masks for an algorithm that respects none.
    """
    options = dict(env_config or {})
    if isinstance(config, TeamConfig):
        if share:
            config.training(share_parameters=True)
        return config.environment(env, env_config=options)
    probe = make_one(env, options)
    if not isinstance(probe, MultiAgentEnv):
        if share:
            raise InputError(f"share_parameters: environment {env!r} has one agent; leave it out")
        probe.close()
        return config.environment(gym_id(env) or env if isinstance(env, str) else env, env_config=options)
    probe.close()
    return _team(config, env, options, share)


def independent(config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None) -> AlgorithmConfig:
    """RLlib's algorithm with a policy for each agent; action masks are respected."""
    return on_environment(config, env, env_config)


def shared(config: AlgorithmConfig, env: Any, env_config: Mapping[str, Any] | None = None) -> AlgorithmConfig:
    """RLlib's algorithm with one policy for all agents, whose observations and actions are padded to one size."""
    return on_environment(config, env, env_config, share=True)


def _team(config: AlgorithmConfig, env: Any, options: dict[str, Any], share: bool) -> AlgorithmConfig:
    whole = {"env": env, "env_config": options, "shared": share}
    team = TeamEnv(whole)
    config.environment(TeamEnv, env_config=whole)
    if team.masked:
        config.environment(disable_env_checking=True)  # RLlib's check draws actions without looking at the mask
    if config.policies == AlgorithmConfig().policies:  # a user's own mapping stays
        names = {SHARED} if share else {policy_name(a) for a in team.possible_agents}
        config.multi_agent(policies=names, policy_mapping_fn=shared_policy if share else own_policy)
    if isinstance(config, DQNConfig) and config.replay_buffer_config.get("type") == "PrioritizedEpisodeReplayBuffer":
        config.replay_buffer_config = {**config.replay_buffer_config, "type": TEAM_BUFFER}
    if team.masked and config._rl_module_spec is None:  # a user's own module stays
        base = config.get_default_rl_module_spec().module_class
        module = masked_module(base)
        if module is None:
            raise InputError(
                f"{config.algo_class.__name__} respects no action masks, which environment {env!r} has; "
                "choose PPO, APPO, IMPALA, DQN or a preset, or give a module of your own in the configuration"
            )
        config.rl_module(rl_module_spec=RLModuleSpec(module_class=module))
    team.close()
    return config


def policy_name(agent: str) -> str:
    """An agent's name as RLlib allows it for a policy."""
    return re.sub(r"[^\w-]", "_", agent)


def own_policy(agent_id: Any, *args: Any, **kwargs: Any) -> str:
    """Every agent has its own policy."""
    return policy_name(str(agent_id))


def shared_policy(agent_id: Any, *args: Any, **kwargs: Any) -> str:
    """All agents have the same policy."""
    return SHARED
