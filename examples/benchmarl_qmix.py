"""Train BenchMARL's QMIX on the default scenario; the task class below is all that BenchMARL needs.

    python examples/benchmarl_qmix.py [FRAMES]

BenchMARL stacks the agents of a group, so that their spaces must be equal: UniformAgents pads them. All agents form one
group, so that QMIX mixes all of them. The mixer gets the state; exploration and targets get the masks.
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
    """Task whose configuration is the options of ``marca_env.parallel_env``."""

    def get_env_fun(
        self, num_envs: int, continuous_actions: bool, seed: int | None, device: Any
    ) -> Callable[[], EnvBase]:
        """Return a function that makes the environment."""

        def make() -> EnvBase:
            env = marca_env.UniformAgents(marca_env.parallel_env(on_illegal="error", **self.config))
            group = MarlGroupMapType.ALL_IN_ONE_GROUP
            return PettingZooWrapper(env, return_state=True, group_map=group, seed=seed, device=device)

        return make

    def supports_continuous_actions(self) -> bool:
        """Return whether actions may be continuous."""
        return False

    def supports_discrete_actions(self) -> bool:
        """Return whether actions may be discrete."""
        return True

    def has_state(self) -> bool:
        """Return whether the environment has a global state."""
        return True

    def has_render(self, env: EnvBase) -> bool:
        """Return whether BenchMARL can render the environment."""
        return False

    def max_steps(self, env: EnvBase) -> int:
        """Return the steps of an episode."""
        return marca_env.parallel_env(**self.config).max_steps

    @staticmethod
    def env_name() -> str:
        """Return the name of the environment."""
        return "marca_env"


def experiment(frames: int, folder: Path, seed: int = 0, **options: Any) -> Experiment:
    """Return an experiment that trains QMIX.

    Args:
        frames: environment steps.
        folder: where BenchMARL writes.
        seed: of the run.
        options: of the task.
    """
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
