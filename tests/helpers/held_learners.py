"""Algorithms whose updates can be held in their middle, for tests that kill a run there.

If the environment variable HELD_UPDATE names a file, a learner writes that file within an update of the sixth
iteration, after the gradients were computed and before they are applied, and then waits to be killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner

from agents.rllib import AWRQMixerConfig, QMIXConfig
from agents.rllib.core.learner import TeamLearner


def hold(update: int, held: int) -> None:
    """Write the marker and wait, if this is the update to hold."""
    marker = os.environ.get("HELD_UPDATE")
    if marker and update == held:
        Path(marker).write_text(str(update))
        time.sleep(300)


class HeldLearner(TeamLearner):
    """Learner of a team that can be held."""

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Apply the gradients, after a wait in one update."""
        steps_per_iteration = self.config.updates_per_iteration
        begun = 0 if self.config.is_offline else self.config.learning_starts // self.config.num_envs_per_env_runner - 1
        begun = begun // max(self.config.num_env_runners, 1)
        hold(self.gradient_steps, (5 - begun) * steps_per_iteration + 1)
        super().apply_gradients(gradients_dict)


class HeldQMIX(QMIXConfig):
    """QMIX that can be held."""

    def get_default_learner_class(self) -> type[TeamLearner]:
        """Return the learner class."""
        return HeldLearner


class HeldAWRQMixer(AWRQMixerConfig):
    """AWRQ-Mixer that can be held."""

    def get_default_learner_class(self) -> type[TeamLearner]:
        """Return the learner class."""
        return HeldLearner


class HeldPPOLearner(PPOTorchLearner):
    """Learner of RLlib's PPO that can be held."""

    late_updates = 0

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        """Apply the gradients, after a wait in the second update of the sixth iteration."""
        progress = Path(os.environ.get("HELD_UPDATE", "")).parent / "killed" / "progress.jsonl"
        if progress.is_file() and len(progress.read_text().splitlines()) == 5:
            self.late_updates += 1
            hold(self.late_updates, 2)
        super().apply_gradients(gradients_dict)


class HeldPPO(PPOConfig):
    """RLlib's PPO that can be held."""

    def __init__(self, algo_class: Any = None) -> None:
        super().__init__(algo_class or PPO)

    def get_default_learner_class(self) -> type[PPOTorchLearner]:
        """Return the learner class."""
        return HeldPPOLearner
