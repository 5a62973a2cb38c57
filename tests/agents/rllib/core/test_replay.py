"""The ring buffer of episodes: order, wrapping, seeded draws, state."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from agents.rllib.core import memory
from agents.rllib.core.memory import check_memory
from agents.rllib.core.replay import EpisodeBatch, EpisodeBuffer, EpisodeStream, PinnedCopies
from marca_env.utils.errors import InputError


def episodes(first: int, n: int) -> dict[str, np.ndarray]:
    """Return ``n`` episodes of three steps; the rewards of each are its number."""
    reward = np.repeat(np.arange(first, first + n, dtype=np.float32)[:, None], 3, axis=1)
    return {"reward": reward, "filled": np.ones((n, 3), bool)}


def test_new_episodes_replace_the_oldest() -> None:
    buffer = EpisodeBuffer(5)
    for k in range(4):
        buffer.add(episodes(2 * k, 2))
    assert len(buffer) == 5
    assert sorted(buffer.columns["reward"][:, 0]) == [3, 4, 5, 6, 7]
    buffer.add(episodes(100, 9))
    assert sorted(buffer.columns["reward"][:, 0]) == [104, 105, 106, 107, 108]


def test_the_room_grows_with_the_content() -> None:
    buffer, room = EpisodeBuffer(100), []
    for k in range(40):
        buffer.add(episodes(3 * k, 3))
        room.append(len(buffer.columns["reward"]))
    assert room[:6] == [3, 6, 12, 12, 24, 24]
    assert room[-1] == 100
    assert set(buffer.columns["reward"][:, 0]) == set(range(20, 120))


def test_images_stay_bytes_in_the_buffer_and_in_a_draw() -> None:
    buffer = EpisodeBuffer(8)
    buffer.add({**episodes(0, 4), "obs:a": np.full((4, 4, 12), 200, np.uint8)})
    assert buffer.columns["obs:a"].dtype == buffer.sample(3)["obs:a"].dtype == np.uint8
    again = EpisodeBuffer(8)
    again.set_state(buffer.state())
    assert again.columns["obs:a"].dtype == np.uint8


def test_a_buffer_that_would_not_fit_is_refused_with_a_capacity_that_fits(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * 2**30))
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    pictures = {**episodes(0, 2), "obs:a": np.zeros((2, 26, 84 * 84 * 4), np.uint8)}
    with pytest.raises(InputError) as caught:
        EpisodeBuffer(50_000).add(pictures)
    assert str(caught.value) == (
        "a full replay buffer of buffer_capacity = 50,000 episodes takes 34.2 GiB (717 KiB each), but 10 GiB of memory "
        "are free; set buffer_capacity to 9,700 or less"
    )
    buffer = EpisodeBuffer(9_700)
    buffer.add(pictures)
    assert len(buffer.columns["reward"]) == 2
    with pytest.raises(InputError, match=r"of train_batch_size_per_learner = 4,096 episodes takes 11\.2 GiB"):
        buffer.sample(4096)
    with pytest.raises(InputError, match="use smaller observations or episodes"):
        check_memory("a batch", "num_envs_per_env_runner", 1, 1e12)


def test_the_memory_of_a_container_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(memory, "CONTAINER", tmp_path)
    free = memory.free_memory()
    (tmp_path / "memory.current").write_text("600")
    for limit, expected in (("1000", 400), ("max", None)):
        (tmp_path / "memory.max").write_text(limit)
        assert memory.free_memory() == pytest.approx(free if expected is None else expected, rel=0.5)


def test_draws_are_seeded_and_uniform() -> None:
    one, two = EpisodeBuffer(50, seed=3), EpisodeBuffer(50, seed=3)
    for buffer in (one, two):
        buffer.add(episodes(0, 40))
    drawn = one.sample(4000)["reward"][:, 0]
    assert np.array_equal(drawn, two.sample(4000)["reward"][:, 0])
    counts = np.bincount(drawn.astype(int), minlength=40)
    assert counts.max() < 150
    assert counts.min() > 60


@pytest.mark.parametrize("added", [3, 5, 7])
def test_a_restored_buffer_continues_exactly(added: int) -> None:
    buffer = EpisodeBuffer(5, seed=1)
    for k in range(added):
        buffer.add(episodes(k, 1))
    buffer.sample(3)
    again = EpisodeBuffer(5, seed=99)
    again.set_state(buffer.state())
    for ring in (buffer, again):
        ring.add(episodes(50, 2))
    assert np.array_equal(again.columns["reward"], buffer.columns["reward"])
    assert np.array_equal(again.sample(20)["reward"], buffer.sample(20)["reward"])


def test_a_buffer_without_turns_is_refused() -> None:
    buffer = EpisodeBuffer(5)
    buffer.add({**episodes(0, 2), "mask:a": np.ones((2, 4, 2), bool)})
    with pytest.raises(InputError, match="does not say which agents are on turn"):
        EpisodeBuffer(5).set_state(buffer.state())


def test_a_batch_counts_filled_steps() -> None:
    columns = episodes(0, 2)
    columns["filled"][1, 1:] = False
    batch = EpisodeBatch(columns, n_agents=2)
    assert (batch.env_steps(), batch.agent_steps()) == (4, 8)
    assert set(batch.columns) == {"reward", "filled"}


def test_an_empty_buffer_is_refused() -> None:
    with pytest.raises(InputError, match="empty"):
        next(EpisodeStream(EpisodeBuffer(3)).iter_torch_batches(batch_size=2))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_copies_to_a_gpu_have_the_values_of_their_own_minibatch() -> None:
    copies = PinnedCopies("cuda")
    batches = [copies({"reward": np.full((4, 2), k, np.float32)})["reward"] for k in range(6)]
    assert [float(b.mean()) for b in batches] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
