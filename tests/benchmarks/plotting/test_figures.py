"""Figures: nothing is cut off, every cluster has its price, peaks and time windows are marked."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from benchmarks.experiments.balancing_adaptation import figure as adaptation
from benchmarks.offline import offline_tables
from benchmarks.plotting import balancer_figures, day_figure
from benchmarks.plotting.time_windows import NOTE, TimeWindows
from benchmarks.suite import records
from benchmarks.suite.reference import FOLDER
from marca_env.scenario.scenario import Latency, Scenario

DEFAULT = Scenario.load("default")
CLUSTERS = DEFAULT.cluster_names


@pytest.fixture
def drawn(monkeypatch):
    """Return the figures that are saved, as matplotlib objects."""
    figures = []
    for module in (adaptation, balancer_figures, day_figure, offline_tables):
        save = module.save_figure
        monkeypatch.setattr(
            module, "save_figure", lambda figure, path, save=save: (save(figure, path), figures.append(figure))
        )
    return figures


def texts(figure):
    """Return titles, labels, annotations and legends; ticks beyond the axes have labels that are not drawn."""
    found = [*figure.texts, *(t for legend in figure.legends for t in (legend.get_title(), *legend.get_texts()))]
    for axis in figure.axes:
        found += [axis.title, axis._left_title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
    return [t for t in found if t.get_text()]


def labels(figure):
    return [axis.get_ylabel() for axis in figure.axes]


def assert_nothing_is_cut_off(figure):
    """Check that all titles, labels and legends lie within the picture."""
    renderer, box = figure._get_renderer(), figure.bbox
    outside = []
    for text in texts(figure):
        extent = text.get_window_extent(renderer)
        inside = box.x0 - 1 <= extent.x0 and extent.x1 <= box.x1 + 1 and box.y0 - 1 <= extent.y0
        if text.get_visible() and not (inside and extent.y1 <= box.y1 + 1):
            outside.append(text.get_text())
    assert outside == []


def minutes(n=600, peak=1.0):
    """Return minutes of a day whose load is the budget, but ``peak`` budgets in minute 300."""
    frame = pd.DataFrame({"minute": np.arange(n), "qps": 100.0, "requests": 6000, "revenue": 1.0})
    for g, cluster in enumerate(DEFAULT.clusters):
        frame[f"load_{cluster.name}"] = cluster.budget
        frame.loc[300, f"load_{cluster.name}"] = peak * cluster.budget
        frame[f"budget_{cluster.name}"] = cluster.budget
        frame[f"price_{cluster.name}"] = 1.0 + g
    return frame


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ablation", "ranking"])
def test_every_method_has_a_panel_and_no_name_is_cut_off(name, drawn, tmp_path):
    rows = [row for row in records.newest(records.read(FOLDER / name)) if "curve" in row.numbers]
    offline_tables.curves_figure(rows, tmp_path / "curves.png")
    (figure,) = drawn
    assert_nothing_is_cut_off(figure)
    groups = offline_tables.group_rows(rows)
    visible = [axis for axis in figure.axes if axis.axison]
    assert len(visible) == 2 * len(groups)
    titles = [axis.get_title(loc="left") for axis in visible if axis.get_title(loc="left")]
    assert len(titles) == len(groups)
    assert all(len(axis.collections) == 1 for axis in visible)  # one band in a panel


def test_the_day_shows_the_price_of_every_cluster(drawn, tmp_path):
    frame = pd.concat([minutes().assign(policy=p, seed=0) for p in ("static", "marca-feedback", "marca-mpc")])
    day_figure.day_figure(frame, DEFAULT, "a day", tmp_path / "day.png", first_minute=60)
    (figure,) = drawn
    assert_nothing_is_cut_off(figure)
    prices = [label for label in labels(figure) if "λ" in label]
    assert [label.split("\n")[0] for label in prices] == list(CLUSTERS)
    assert all("currency" in label for label in prices)
    assert labels(figure)[-1].endswith("currency")
    assert NOTE in [t.get_text() for t in texts(figure)]


def test_days_with_a_latency_limit_have_a_panel_of_it(drawn, tmp_path):
    timed = minutes().assign(latency_p50=0.001, latency_p99=0.003, late=0.0)
    limited = DEFAULT.replace(latency=Latency(0.004))
    day_figure.day_figure(timed.assign(policy="static", seed=0), limited, "a day", tmp_path / "day.png")
    balancer_figures.side_by_side({"mpc": timed}, CLUSTERS, "a day", tmp_path / "balance.png", limit=0.004)
    for figure in drawn:
        assert_nothing_is_cut_off(figure)
        (panel,) = [axis for axis in figure.axes if "p99" in axis.get_ylabel()]
        limit, line = panel.get_lines()
        assert np.allclose(limit.get_ydata(), 4.0)
        assert np.allclose(line.get_ydata(), 3.0)


@pytest.mark.slow
def test_peaks_above_the_axis_are_marked(drawn, tmp_path):
    runs = {"feedback": minutes(peak=3.2), "mpc": minutes()}
    balancer_figures.side_by_side(runs, CLUSTERS, "a day", tmp_path / "balance.png", windows=TimeWindows.of(DEFAULT))
    frame = pd.concat([minutes(peak=3.2).assign(policy=p, seed=0) for p in ("static", "marca-mpc")])
    day_figure.day_figure(frame, DEFAULT, "a day", tmp_path / "day.png")
    for figure in drawn:
        assert_nothing_is_cut_off(figure)
        assert [t.get_text() for t in texts(figure)].count("up to 3.2") == len(CLUSTERS)


def test_a_changed_system_shows_the_price_of_every_cluster(drawn, tmp_path):
    trace = {"load": np.full((100, 2), 1.0), "prices": np.full((100, 2), 2.0)}
    trace["load"][60] = 2.5
    shown = {"costs": {"MPC": trace, "feedback": trace}}
    adaptation.adaptation_figure(shown, CLUSTERS, 50, tmp_path / "change.png")
    (figure,) = drawn
    assert_nothing_is_cut_off(figure)
    assert sum("λ" in label for label in labels(figure)) == len(CLUSTERS)
    assert [t.get_text() for t in texts(figure)].count("up to 2.5") == len(CLUSTERS)


def test_time_windows_are_those_of_the_request_mix():
    windows = TimeWindows.of(DEFAULT)
    assert windows == TimeWindows(6)
    assert windows.bands(1440) == [(4.0, 8.0), (12.0, 16.0), (20.0, 24.0)]
    assert TimeWindows(6, first_minute=300).bands(600) == [(0.0, 3.0), (7.0, 10.0)]
    assert TimeWindows(6, first_minute=1380).bands(360) == [(0.0, 1.0), (5.0, 6.0)]
