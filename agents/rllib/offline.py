"""Learning from a request log: its episodes in memory, in place of RLlib's data pipeline."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.offline.offline_data import OfflineData

from agents.episodes import log_episodes
from agents.rllib.replay import EpisodeBuffer, EpisodeStream
from marca_env.errors import InputError
from marca_env.logs import read_request_log
from marca_env.scenario import Scenario


class LogEpisodes(OfflineData):
    """What ``config.offline_data(input_="requests.parquet")`` becomes: a full buffer of episodes, drawn from evenly."""

    def __init__(self, config: Any) -> None:
        # RLlib's constructor would start ray.data to read the file; nothing of it is needed.
        self.config = config
        paths = [config.input_] if isinstance(config.input_, str) else list(config.input_)
        parts = [log_episodes(_read(path, config), config.scenario, joint=config.preset().joint) for path in paths]
        columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self.buffer = EpisodeBuffer(len(columns["reward"]), seed=config.seed)
        self.buffer.add(columns)
        self.data = EpisodeStream(self.buffer)
        self.learner_handles: Any = None
        self.locality_hints: Any = None
        self.module_spec: Any = None
        self.spaces: Any = None

    def sample(
        self, num_samples: int, return_iterator: bool = False, num_shards: int = 1, module_state: Any = None
    ) -> Any:
        """An endless stream of minibatches."""
        return self.data


def _read(path: str, config: Any) -> Any:
    log = read_request_log(Path(path), Scenario.load(config.scenario))
    if len(log) == 0:
        raise InputError(f"{path}: the log has no rows; give one with requests")
    return log
