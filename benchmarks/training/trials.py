"""One training run as data, from ``marca train`` or an experiment file: its configuration and how to train it."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agents.policy.checkpoints import checkpoint_name
from benchmarks.evaluation.offline_evaluation import OfflineEvaluation
from benchmarks.training.run_log import RunLog
from marca_env.utils.errors import InputError, unknown_option
from marca_env.utils.files import lock_output
from marca_env.utils.model_files import check_device
from marca_env.utils.progress import track_progress
from marca_env.utils.validation import as_seed

if TYPE_CHECKING:
    from agents.rllib.training.first_update import NothingLearnt

DEFAULT_ENV = "marca_env/parallel-v0"
DEFAULT_STOP = {"training_iteration": 50}
DEVICES = ("cpu", "cuda")
IN_PROCESS = ("PPO", "DQN", "SAC")
"""RLlib's algorithms that sample in this process by default, as the presets do."""


@dataclass(frozen=True)
class Trial:
    """One training run."""

    run: str = "AWRQMixer"
    """Algorithm: a preset, one of RLlib's, or the dotted path of a class or configuration."""
    env: str | None = None
    """Environment id or dotted path; ``None``: the recommender, unless ``offline`` is set."""
    offline: str | None = None
    """Request log to learn from."""
    scenario: str | None = None
    """Preset or YAML file of the environment or the log."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """Options of the algorithm, also ``env_config`` and ``share_parameters``."""
    stop: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_STOP))
    seed: int = 0
    checkpoint_freq: int = 0
    """Iterations between checkpoints; 0: only the last."""
    evaluate_freq: int = 0
    """Iterations between evaluations of an offline run; 0: none."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.offline is not None and self.env is not None:
            raise InputError("offline and env exclude each other; give one of them")
        as_seed(self.seed)
        for name in ("seed", "checkpoint_freq", "evaluate_freq"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 0:
                raise InputError(f"{name} is {value!r}; give a non-negative integer")
        if self.device not in DEVICES:
            raise InputError(unknown_option("device", self.device, DEVICES))

    @property
    def where(self) -> str:
        """The log or environment that the run learns from."""
        return str(self.offline or self.env or DEFAULT_ENV)

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain data."""
        return dataclasses.asdict(self)

    def build(self) -> Any:
        """Build and check the configuration.

        Raises:
            InputError: an unknown algorithm, environment or option, or values that contradict each other.
        """
        from agents.rllib.core.team_config import TeamConfig
        from agents.rllib.training.any_algorithm import algorithm_config, set_environment
        from agents.rllib.training.flat_options import apply_options, validate_config

        config = algorithm_config(self.run).debugging(seed=self.seed)
        options = dict(self.config)
        env_config = options.pop("env_config", {})
        if not isinstance(env_config, Mapping):
            raise InputError(f"env_config is {env_config!r}; give an object of the environment's options")
        team_reward = None if isinstance(config, TeamConfig) else options.pop("team_reward", None)
        share = options.pop("share_parameters", False)
        if not isinstance(share, bool):
            raise InputError(f"share_parameters is {share!r}; give true or false")
        if self.run in IN_PROCESS:
            config.env_runners(num_env_runners=0)
        if self.offline is not None:
            options = self._on_log(config, {**options, "share_parameters": True} if share else options)
        elif self.env is not None or config.env is None:  # a user's configuration may have its own environment
            scenario = {"scenario": self.scenario} if self.scenario else {}
            set_environment(config, self.env or DEFAULT_ENV, {**scenario, **env_config}, share=share)
        if not isinstance(config, TeamConfig):
            self._report(config, team_reward)
        self._place(config, options)
        return validate_config(apply_options(config, options))

    def _report(self, config: Any, team_reward: Any) -> None:
        """Let RLlib's own algorithms evaluate greedily and report the return that ``team_reward`` names."""
        from agents.rllib.envs.team_env import TeamEnv
        from agents.rllib.envs.team_reward import check_team_reward

        config.evaluation(evaluation_config={"explore": False, **(config.evaluation_config or {})})
        if team_reward is None:
            return
        check_team_reward(team_reward)
        if config.env is not TeamEnv:
            raise InputError(f"team_reward: environment {self.where} has one agent; remove the option")
        config.env_config = {**config.env_config, "team_reward": team_reward}

    def _on_log(self, config: Any, options: dict[str, Any]) -> dict[str, Any]:
        from agents.rllib.core.team_config import TeamConfig

        if not isinstance(config, TeamConfig):
            raise InputError(f"algorithm {self.run} does not learn from request logs; choose a preset, such as QMIX")
        path = Path(str(self.offline))
        if not path.exists() and not glob.has_magic(str(path)):
            raise InputError(f"{path}: no such file; offline needs a request log")
        config.offline_data(input_=[str(path.resolve())])
        if self.evaluate_freq:
            options = {"split": "hash", **options}  # else it would be evaluated on its training rows
        return {"scenario": self.scenario, **options} if self.scenario else options

    def _place(self, config: Any, options: dict[str, Any]) -> None:
        """Put the learners on the GPU, unless the options say how many GPUs each has."""
        if options.get("num_gpus_per_learner"):
            check_device("cuda")
        elif self.device != "cpu":
            check_device(self.device)
            config.learners(num_gpus_per_learner=1)


@dataclass(frozen=True)
class TrialOutcome:
    """Result of a run."""

    numbers: Mapping[str, Any]
    """Numbers of the last iteration."""
    checkpoint: Path
    interrupted: bool
    missing: NothingLearnt | None = None
    """Why nothing is learnt yet; ``None`` if something is."""

    @property
    def policy(self) -> Path | None:
        """The policy folder, which loads without ray; ``None`` for algorithms of RLlib and of users."""
        folder = self.checkpoint / "policy"
        return folder if folder.is_dir() else None


def run_trial(
    trial: Trial,
    out: Path,
    *,
    config: Any = None,
    resume: Path | None = None,
    placement: Mapping[str, Any] | None = None,
    keep: int | None = None,
    wandb: str | None = None,
    report: Callable[[dict[str, Any]], None] | None = None,
    trust: bool = False,
) -> TrialOutcome:
    """Train; every reported number goes to ``progress.jsonl``, ``progress.csv`` and TensorBoard events in ``out``.

    Args:
        trial: the run.
        out: its folder.
        config: of ``trial``, if it is built already.
        resume: checkpoint, or folder of a run, to continue from; of ``trial``, only the limits count then.
        placement: where a resumed run continues (:func:`agents.rllib.training.placement.place`).
        keep: newest checkpoints to keep; ``None``: all, or as many as a resumed run remembers.
        wandb: project of Weights & Biases to report to as well.
        report: called after each iteration with the few numbers that a progress line shows.
        trust: resume a run that this user did not write; this executes the code in its pickles.
    """
    from agents.rllib.training.first_update import missing_for_learning
    from agents.rllib.training.training import train

    if resume is None and config is None:
        config = trial.build()
    evaluate = make_evaluator(trial, resume)
    with lock_output(out), RunLog(out, wandb=wandb, described=trial.to_dict()) as log:
        algorithm, numbers = train(
            config,
            stop=dict(trial.stop),
            out=out,
            resume=resume,
            placement=placement,
            checkpoint_freq=trial.checkpoint_freq,
            keep=keep,
            report=report,
            record=log.write,
            evaluate=evaluate,
            evaluate_freq=trial.evaluate_freq,
            begin=None if evaluate is None else evaluate.announce,
            trust=trust,
        )
    checkpoint = out / checkpoint_name(int(algorithm.iteration))
    reported = {name: value for name, value in numbers.items() if name != "interrupted"}
    missing = missing_for_learning(algorithm, reported)
    algorithm.stop()
    return TrialOutcome(reported, checkpoint, bool(numbers.get("interrupted")), missing)


def make_evaluator(trial: Trial, resume: Path | None) -> HeldOutRows | None:
    """Return what evaluates an offline run during training; ``None`` if nothing is to be evaluated."""
    if not trial.evaluate_freq:
        return None
    if trial.offline is None and resume is None:
        raise InputError("evaluate_freq evaluates offline runs; give a request log in offline, or leave it out")
    return HeldOutRows()


class HeldOutRows:
    """Scores of an algorithm on the validation rows of its request log; prepared at first use."""

    def __init__(self) -> None:
        self._evaluation: Any = None

    def __call__(self, algorithm: Any) -> dict[str, float]:
        """Return the scores of an algorithm."""
        if self._evaluation is None:
            self._evaluation = self._prepare(algorithm.config)
        return self._evaluation(algorithm)

    @staticmethod
    def announce(algorithm: Any) -> None:
        """Print how many rows are held out.

        Raises:
            InputError: the run has no log, or learns from all of its rows.
        """
        if not algorithm.config.is_offline:
            raise InputError("evaluate_freq evaluates offline runs; this one learns in an environment: leave it out")
        log = algorithm.offline_data
        validation, test = log.held_out("validation"), log.held_out("test")
        if not validation:
            raise InputError(
                "evaluate_freq: this run learns from all rows of its log, none is held out for an evaluation; start "
                "it with --evaluate-freq, or set split and validation_share in its config"
            )
        print(
            f"held out of {log.rows:,} rows: {validation:,} on which the run is evaluated (validation_share = "
            f"{algorithm.config.validation_share:g}) and {test:,} for a test; it learns from the others",
            flush=True,
        )

    def _prepare(self, config: Any) -> Any:
        from agents.rllib.core.offline_log import log_split

        with track_progress("preparing the evaluation") as tell:
            return OfflineEvaluation.from_log(
                config.input_, config.scenario, split=log_split(config), part="validation", progress=tell
            )
