"""BenchMARL's QMIX on the default scenario: the task below is all that it needs. ``python benchmarl_qmix.py FRAMES``

BenchMARL trains and mixes the agents of one group, and stacks them: UniformAgents gives them the same spaces. All
agents are one group, so that QMIX mixes all; the state goes to the mixer, the masks to exploration and targets.
Install: ``pip install 'marca-env[conformance]'``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarl.algorithms import QmixConfig
from benchmarl.environments.pettingzoo.common import PettingZooClass
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from torchrl.envs import EnvBase, MarlGroupMapType, PettingZooWrapper

import marca_env


class RecommenderTask(PettingZooClass):
    """The options of ``marca_env.parallel_env`` are the task's configuration."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        def make() -> EnvBase:
            env = marca_env.UniformAgents(marca_env.parallel_env(on_illegal="error", **self.config))
            group = MarlGroupMapType.ALL_IN_ONE_GROUP
            return PettingZooWrapper(env, return_state=True, group_map=group, seed=seed, device=device)

        return make

    def supports_continuous_actions(self) -> bool:
        return False

    def supports_discrete_actions(self) -> bool:
        return True

    def has_state(self) -> bool:
        return True

    def has_render(self, env: EnvBase) -> bool:
        return False

    def max_steps(self, env: EnvBase) -> int:
        return marca_env.parallel_env(**self.config).max_steps

    @staticmethod
    def env_name() -> str:
        return "marca_env"


def experiment(frames: int, folder: Path, seed: int = 0, **options: Any) -> Experiment:
    """QMIX for ``frames`` steps of the environment; ``options`` of the task."""
    config = ExperimentConfig.get_from_yaml()
    config.max_n_frames, config.lr = frames, 5e-4
    config.off_policy_collected_frames_per_batch = min(500, frames)
    config.off_policy_n_envs_per_worker, config.off_policy_n_optimizer_steps = 10, 20
    config.off_policy_memory_size = 50_000
    config.evaluation, config.render, config.loggers, config.create_json = False, False, ["csv"], False
    config.save_folder = str(folder)
    return Experiment(
        task=RecommenderTask("RECOMMENDER", options),
        algorithm_config=QmixConfig.get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        critic_model_config=MlpConfig.get_from_yaml(),
        seed=seed,
        config=config,
    )


if __name__ == "__main__":
    out = Path("results/benchmarl")
    out.mkdir(parents=True, exist_ok=True)
    run = experiment(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000, out)
    run.run()
    print(f"revenue per request, currency: {run.mean_return:.4f}")
