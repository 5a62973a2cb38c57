"""Data of single environments: what does not fit is refused in one line, what does is flattened."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from agents.rllib.envs.make_env import make_batched
from agents.rllib.envs.sequential_env import SequentialEnv, SimulatorError
from marca_env.utils.errors import InputError
from tests.helpers.faulty_envs import Plain, faulty, late

ZEROS, ONES = np.zeros(3, np.float32), np.ones(3, np.int8)
PICTURE = gym.spaces.Box(0, 255, (4, 4, 3), np.uint8)


def play(env: Any) -> Any:
    """Play one episode of two sub-environments with action 0 and return the last step."""
    batched = env if isinstance(env, SequentialEnv) else make_batched(env, 2)
    step = batched.reset(seed=0)
    for _ in range(batched.max_steps):
        step = batched.step({a: step.masks[a].argmax(-1) for a in batched.agents})
    return step


def raises(*args: Any) -> Any:
    """Fail as a simulator does."""
    raise KeyError("wheel")


def old_step(env: Plain, actions: Any) -> Any:
    """Return the four values of old versions of gym."""
    observations, rewards, ended, _, infos = Plain.step(env, actions)
    return observations, rewards, ended, infos


def renaming(env: Plain, actions: Any) -> Any:
    """Rename an agent at step 2."""
    result = Plain.step(env, actions)
    return result if env.at < 2 else tuple({("uno" if a == "one" else a): v for a, v in x.items()} for x in result)


STEP = r"agent 'two' at step 2 of Faulty: "
FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "observation shape": ({"observe": late("two", np.zeros(4), ZEROS)}, STEP + r"observation has shape \(4,\), but"),
    "observation of one number": ({"observe": late("two", np.zeros(1), ZEROS)}, STEP + r"observation has shape \(1,\)"),
    "observation is text": (
        {"observe": late("two", np.array(["a"] * 3), ZEROS)},
        STEP + r"observation is array\(\['a'",
    ),
    "observation is ragged": ({"observe": late("two", [[1], [1, 2], 3], ZEROS)}, STEP + r"observation is a list that"),
    "observation is a dict": (
        {"observe": late("two", {"x": ZEROS}, ZEROS)},
        STEP + r"observation has the keys 'x', but",
    ),
    "float image": (
        {"box": PICTURE, "observe": late("two", np.zeros((4, 4, 3)), np.zeros((4, 4, 3), np.uint8))},
        STEP + r"observation is float64, but its space says uint8 \(an image\)",
    ),
    "image out of range": (
        {"box": PICTURE, "observe": late("two", np.full((4, 4, 3), 300), np.zeros((4, 4, 3), np.uint8))},
        STEP + r"observation goes from 300 to 300, but its space says 0 to 255",
    ),
    "discrete out of range": (
        {"box": gym.spaces.Discrete(3), "observe": late("two", -1, 0)},
        STEP + r"observation is -1, but its space says 0 to 2",
    ),
    "dict without a key": (
        {
            "box": gym.spaces.Dict({"x": Plain.box, "y": Plain.box}),
            "observe": late("two", {"x": ZEROS}, {"x": ZEROS, "y": ZEROS}),
        },
        STEP + r"observation, a dict with the keys 'x', does not fit its space .*KeyError: 'y'",
    ),
    "mask of wrong length": ({"mask": late("two", np.ones(2), ONES)}, STEP + "action_mask has 2 entries for 3 actions"),
    "mask without a legal action": (
        {"mask": late("two", 0 * ONES, ONES)},
        STEP + "action_mask allows no action: allow one, or set",
    ),
    "reward of two numbers": (
        {"reward": late("two", np.ones(2), 1.0)},
        STEP + r"reward is array\(\[1., 1.\]\); return one",
    ),
    "reward None": ({"reward": late("two", None, 1.0)}, STEP + "reward is None; return one number per agent"),
    "reward is text": ({"reward": late("two", "1", 1.0)}, STEP + "reward is '1'; return one number per agent"),
    "reward nan": ({"reward": late("two", np.nan, 1.0)}, STEP + "reward is nan; return finite numbers"),
    "reward infinite": ({"reward": late("two", np.float32("inf"), 1.0)}, STEP + "reward is inf; return finite numbers"),
    "four values": ({"step": old_step}, r"Faulty: step\(\) returned four values, as in old versions of gym; return"),
    "rewards not by agent": (
        {"step": lambda env, actions: (*Plain.step(env, actions)[:1], 1.0, *Plain.step(env, actions)[2:])},
        r"Faulty: step\(\) must return .* it returned \(dict, float, dict, dict, dict\)",
    ),
    "reset without infos": (
        {"reset": lambda env, seed=None: Plain.reset(env)[0]},
        r"Faulty: reset\(\) must return \(obs",
    ),
    "renamed agent": ({"step": renaming}, "step 2 of Faulty: unknown agent 'uno' in observations; possible_agents are"),
    "simulator": (
        {"step": raises},
        r"step 1 of Faulty with actions \{'one': 0, 'two': 0\} failed: KeyError: 'wheel'; fix",
    ),
    "simulator at reset": ({"reset": raises}, r"reset\(\) of Faulty failed: KeyError: 'wheel'; fix the environment"),
    "state raises": ({"state": raises, "state_space": Plain.box}, r"state\(\) of Faulty at step 0 failed: KeyError"),
    "state of wrong size": (
        {"state": lambda env: np.zeros(5), "state_space": Plain.box},
        r"step 0 of Faulty: state has shape \(5,\), but its space says \(3,\); fix state\(\), or remove state_space",
    ),
    "other mask in infos": (
        {"infos": lambda env, agents=None: {a: {"legal_actions": ONES, "time": 1} for a in agents or env.agents}},
        "agent 'one' at step 0 of Faulty: infos have the keys 'legal_actions', 'time'; 'legal_actions' looks like a "
        "mask of the 3 actions: rename it to 'action_mask'",
    ),
    "other mask in observations": (
        {"box": gym.spaces.Dict({"observation": Plain.box, "avail_actions": gym.spaces.MultiBinary(3)})},
        "Faulty: agent 'one': observations have the keys 'avail_actions', 'observation'; 'avail_actions' looks like",
    ),
    "space without a size": (
        {"box": gym.spaces.Sequence(Plain.box)},
        "Faulty: agent 'one': observation space .* no fixed",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_with_agent_step_and_environment(name: str) -> None:
    parts, message = FAULTS[name]
    with pytest.raises(InputError, match=message) as caught:
        play(faulty(**parts))
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SimulatorError) == (" failed: " in message)
    if " failed: " in message:
        assert isinstance(caught.value.__cause__, KeyError)


@pytest.mark.parametrize(
    "parts",
    [
        {},
        {"observe": late("two", [0, 0, 0], np.zeros((3, 1)))},  # a list, and one axis more
        {"observe": late("two", np.zeros(3, np.int64), np.zeros(3))},  # other numbers than the space's float32
        {"reward": late("two", np.ones(1), np.int64(1))},
        {"mask": late("two", None, [True, False, True])},  # a mask that comes and goes
        {"state": lambda env: np.zeros(5)},  # without a state_space
        {"infos": lambda env, agents=None: {a: {"mask": "no mask"} for a in agents or env.agents}},
        {"step": lambda env, actions: (*Plain.step(env, actions)[:4], {})},
        {
            "infos": lambda env, agents=None: {
                a: {"action_mask": 0 * ONES, "on_turn": False} for a in agents or env.agents
            }
        },
    ],
)
def test_sound_data_pass(parts: dict[str, Any]) -> None:
    step = play(faulty(**parts))
    assert step.terminated.all()
    assert np.isfinite(step.state).all()


def test_a_mask_may_be_empty_after_the_end() -> None:
    """Some environments allow no action in the last observation, where nobody acts."""

    class Cut(Plain):
        def step(self, actions: Any) -> Any:
            observations, rewards, ended, _, infos = super().step(actions)
            over = self.at == self.max_steps
            return observations, rewards, dict.fromkeys(ended, False), dict.fromkeys(ended, over), infos

        def mask(self, agent: str) -> Any:
            return ONES * (self.at < self.max_steps)

    step = play(Cut)
    assert step.truncated.all()
    assert not step.is_on_turn("one").any()


def test_states_may_be_dicts_or_images() -> None:
    class Known(Plain):
        state_space: gym.Space = gym.spaces.Dict({"map": PICTURE, "time": gym.spaces.Discrete(5)})

        def state(self) -> Any:
            return {"map": np.full((4, 4, 3), 51, np.uint8), "time": self.at}

    env = make_batched(Known, 2)
    assert env.state_size == 48 + 5
    assert not env.state_is_observations
    state = env.reset(seed=0).state
    assert state.dtype == np.float32
    np.testing.assert_allclose(state[0], [0.2] * 48 + [1, 0, 0, 0, 0], rtol=1e-6)

    class Seen(Known):
        state_space = PICTURE

        def state(self) -> Any:
            return np.full((4, 4, 3), 51, np.uint8)

    state = make_batched(Seen, 2).reset(seed=0).state
    assert (state.dtype, state[0, 0]) == (np.uint8, 51)


def test_a_state_that_fails_after_the_end_is_not_needed() -> None:
    class Ends(Plain):
        state_space: gym.Space = Plain.box

        def state(self) -> Any:
            return np.full(3, self.at, np.float32) if self.agents else np.zeros(0)

    assert play(Ends).state.tolist() == [[3.0] * 3] * 2


def test_images_stay_bytes() -> None:
    class Pictures(Plain):
        box = PICTURE

        def observe(self, agent: str) -> Any:
            return np.full((4, 4, 3), 51 if agent == "one" else 102, np.uint8)

    env = make_batched(Pictures, 2)
    step = env.reset(seed=0)
    assert env.observation_sizes == {"one": 48, "two": 48}
    assert step.observations["one"].dtype == step.state.dtype == np.uint8
    assert step.state[0].tolist() == [51] * 48 + [102] * 48


class Numbered(MultiAgentEnv):
    """RLlib environment whose agents are called 0 and 1."""

    max_steps = 2

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        self.agents = self.possible_agents = [0, 1]
        self.observation_spaces = dict.fromkeys(self.agents, Plain.box)
        self.action_spaces = dict.fromkeys(self.agents, gym.spaces.Discrete(2))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.at = 0
        return dict.fromkeys(self.agents, ZEROS), {}

    def step(self, actions: dict[int, int]) -> Any:
        self.at += 1
        over = {"__all__": self.at == 2}
        return dict.fromkeys(self.agents, ZEROS), actions, over, {"__all__": False}, {"__common__": {}}


class NumberedParallel(Plain):
    """PettingZoo-like environment whose agents are numbers."""

    possible_agents: ClassVar = [3, 7]  # type: ignore[assignment]


@pytest.mark.parametrize(("env", "names"), [(Numbered, ("0", "1")), (NumberedParallel, ("3", "7"))])
def test_agents_may_be_numbers(env: Any, names: tuple[str, ...]) -> None:
    batched = make_batched(env, 2)
    assert batched.agents == names
    assert play(batched).terminated.all()


def test_agents_with_equal_names_are_refused() -> None:
    with pytest.raises(InputError, match="read the same"):
        make_batched(faulty(possible_agents=[1, "1"]), 1)
