"""Tests of rendering: frames agree with the episode, bars have the right length, windows open and close."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from pettingzoo.test import render_test
from PIL import Image

import marca_env
from marca_env.envs import pettingzoo_env
from marca_env.envs.gym_env import RecommenderEnv
from marca_env.envs.price_env import BalancingEnv
from marca_env.envs.rendering import drawing
from marca_env.envs.rendering.screen import Screen
from marca_env.envs.rendering.text import as_text
from marca_env.envs.rendering.views import ClusterView, StageView, View
from marca_env.models.engine import Engine
from tests.helpers.paths import EXAMPLES

EXAMPLE = EXAMPLES / "record_episode.py"


def finish(env: RecommenderEnv, actions: tuple[int, ...]) -> dict:
    env.reset(seed=0)
    for action in actions:
        *_, info = env.step(action)
    return info


def test_text_frame_shows_results_costs_prices_and_revenue(tiny_engine: Engine) -> None:
    env = RecommenderEnv(engine=tiny_engine, render_mode="ansi", prices=[3.0, 0.25])
    info = finish(env, (1, 2, 1, 2))
    frame = env.render()
    for name, candidates in info["results"].items():
        line = next(x for x in frame.splitlines() if x.strip().startswith(name))
        assert f" {candidates:.0f} " in line
        assert "core-ms" in line
    for name, cost in info["cost"].items():
        budget = next(c.budget for c in tiny_engine.scenario.clusters if c.name == name)
        load = f"{cost * tiny_engine.scenario.peak_qps:6.2f} of {budget:.2f} cores"
        assert f"{load}  cost {1e3 * cost:.2f} core-ms" in frame
    assert "λ 3" in frame
    assert "λ 0.25" in frame
    assert f"revenue {info['revenue']:.4g}" in frame


def test_stage_costs_add_up_to_cluster_costs(tiny_engine: Engine) -> None:
    scenario, rng = tiny_engine.scenario, np.random.default_rng(0)
    actions = rng.integers(0, scenario.action_shape, (20, 4))
    results, cost, _ = tiny_engine.evaluate(tiny_engine.population.states[:20], actions)
    stages = tiny_engine.stage_costs(actions, results)
    assert stages is not None
    for g in range(2):
        np.testing.assert_allclose(stages[:, scenario.stage_clusters[0] == g].sum(axis=1), cost[:, g], rtol=1e-5)


def test_cost_model_without_stage_costs_can_be_rendered(exact_engine: Engine) -> None:
    env = RecommenderEnv(engine=exact_engine, render_mode="rgb_array")
    finish(env, (0, 0, 0, 0))
    assert exact_engine.stage_costs(np.zeros((1, 4), int), np.ones((1, 3))) is None
    assert env.render().dtype == np.uint8


@pytest.mark.parametrize("maker", [marca_env.parallel_env, RecommenderEnv])
def test_all_frames_of_a_video_have_one_size(tiny_engine: Engine, maker) -> None:
    env = maker(engine=tiny_engine, render_mode="rgb_array")
    sizes = set()
    for seed in range(3):
        env.reset(seed=seed)
        sizes.add(env.render().shape)
        for _ in range(4):
            env.step(0 if maker is RecommenderEnv else dict.fromkeys(env.agents, 0))
            sizes.add(env.render().shape)
    assert len(sizes) == 1


def view(load: float, candidates: tuple[float, ...] = (400.0, 100.0), history: int = 0) -> View:
    stages = tuple(StageView(f"s{k}", (("knob", "on"),), n, 0.001) for k, n in enumerate(candidates))
    past = tuple((load, 1.0) for _ in range(history))
    return View("t", stages, (ClusterView("c", load, 1.0, 2.0, history=past),), "load", widest=400.0)


def width_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> int:
    """Return the largest number of pixels of that colour in a row."""
    return int((pixels == np.array(colour)).all(axis=2).sum(axis=1).max())


def test_bars_are_proportional_to_their_values() -> None:
    half, full = (width_of(drawing.as_pixels(view(x)), drawing._LOAD) for x in (0.4, 0.8))
    assert full == pytest.approx(2 * half, rel=0.05)
    assert (
        width_of(drawing.as_pixels(view(1.3)), drawing._LOAD) < 60
    )  # red instead; only the text of the load has this colour
    assert width_of(drawing.as_pixels(view(1.3)), drawing._OVER) > full
    wide, narrow = (width_of(drawing.as_pixels(view(0.5, (n, 1.0))), drawing._FUNNEL) for n in (400.0, 100.0))
    assert wide == pytest.approx(2 * narrow, rel=0.1)  # proportional to the square root of the length
    assert "▲" in as_text(view(1.3))
    assert "▲" not in as_text(view(0.9))


def test_undecided_stages_are_drawn_as_open_boxes() -> None:
    unknown = View("t", (StageView("s", (), None, None),), (ClusterView("c", None, 1.0, 0.0),), "load")
    pixels = drawing.as_pixels(unknown)
    assert width_of(pixels, drawing._FUNNEL) == 0
    assert width_of(pixels, drawing._OPEN) > 200
    assert "?" in as_text(unknown)


def test_frame_of_a_day_shows_its_history(exact_engine: Engine) -> None:
    env = BalancingEnv(engine=exact_engine, traffic=np.full(30, 40.0), render_mode="rgb_array")
    env.reset(seed=0)
    first = env.render()
    for k in range(30):
        env.step(np.full(2, k / 30))
    last = env.render()
    assert first.shape == last.shape
    assert width_of(last, drawing._PRICE) > width_of(first, drawing._PRICE)
    legend = last[-drawing._LEGEND - drawing._MARGIN // 2 :]
    assert all(width_of(legend, colour) >= 20 for colour in (drawing._LOAD, drawing._QUIET, drawing._PRICE))


def test_no_text_of_a_frame_is_cut_off() -> None:
    """The last columns of the picture hold paper only."""
    pixels = drawing.as_pixels(view(0.5, history=4))
    assert (pixels[:, -2:] == np.array(drawing._PAPER)).all()


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch):
    """Return pygame with a dummy video driver."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    return pytest.importorskip("pygame")


def test_human_mode_shows_every_step_in_a_window(tiny_engine: Engine, window, monkeypatch) -> None:
    shown_pixels: list[np.ndarray] = []
    show = drawing.PygameWindow.show
    monkeypatch.setattr(
        drawing.PygameWindow, "show", lambda self, pixels: (shown_pixels.append(pixels), show(self, pixels))[1]
    )
    monkeypatch.setattr(RecommenderEnv, "metadata", {**RecommenderEnv.metadata, "render_fps": 1000})
    env = gymnasium.make("marca_env/Recommender-v0", engine=tiny_engine, render_mode="human")
    finish(env, (0, 1, 0, 1))
    assert len(shown_pixels) == 5
    surface = window.display.get_surface()
    np.testing.assert_array_equal(window.surfarray.array3d(surface).transpose(1, 0, 2), shown_pixels[-1])
    env.close()
    assert window.display.get_surface() is None
    env.close()


def test_render_modes_pass_the_pettingzoo_render_test(exact_engine: Engine, window, monkeypatch) -> None:
    monkeypatch.setitem(pettingzoo_env._METADATA, "render_fps", 1000)
    render_test(lambda **options: marca_env.env(engine=exact_engine, **options))


def test_human_mode_opens_and_closes_a_window_in_the_other_environments(
    exact_engine: Engine, window, monkeypatch
) -> None:
    monkeypatch.setitem(pettingzoo_env._METADATA, "render_fps", 1000)
    parallel = marca_env.parallel_env(engine=exact_engine, render_mode="human")
    parallel.reset(seed=0)
    assert window.display.get_surface() is not None
    assert parallel.render() is None
    parallel.close()
    monkeypatch.setattr(BalancingEnv, "metadata", {**BalancingEnv.metadata, "render_fps": 1000})
    day = BalancingEnv(engine=exact_engine, traffic=np.full(3, 40.0), render_mode="human")
    day.reset(seed=0)
    day.step(np.zeros(2))
    day.close()
    assert window.display.get_surface() is None


def test_missing_pygame_error_names_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ImportError, match=r"pip install 'marca-env\[render\]'"):
        Screen("human", 1.0).show(view(0.5))


@pytest.mark.slow
def test_example_records_an_episode_as_a_short_gif(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), "--out", str(tmp_path / "e.gif")], capture_output=True, text=True, check=True
    )
    assert "36 frames" in done.stdout
    with Image.open(tmp_path / "e.gif") as film:
        assert film.n_frames == 36
        assert film.size[0] == 720
    assert (tmp_path / "e.gif").stat().st_size < 1_000_000
