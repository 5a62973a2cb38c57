"""The folder of a world of ratings: written once, copied with its scenario, never mixed with other logs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marca_env.cascade.rated_world import FILE, RatedWorld
from marca_env.integration.ratings.rated_scenario import RatedSources, build_rated_scenario, copy_world
from marca_env.integration.ratings.ratings_report import rated_report_lines
from marca_env.scenario.scenario import Scenario
from marca_env.utils.errors import InputError
from tests.helpers.ratings import make_ratings, write_tables


def test_a_folder_is_written_once_and_not_for_other_ratings(tiny_scenario: Scenario, tmp_path: Path) -> None:
    sources, out = RatedSources(*write_tables(tmp_path)), tmp_path / "out"
    first, report = build_rated_scenario(sources, out, tiny_scenario)
    written = (out / FILE).stat().st_mtime_ns
    again, same = build_rated_scenario(sources, out, tiny_scenario)
    assert (again, same, (out / FILE).stat().st_mtime_ns) == (first, report, written)
    other, _ = build_rated_scenario(sources, tmp_path / "other", tiny_scenario)
    assert other.catalogue.world == first.catalogue.world

    (out / "cost_log.csv").write_text("measured on these ratings")
    make_ratings(seed=1).to_csv(sources.ratings, index=False)
    with pytest.raises(InputError, match=r"holds cost_log\.csv of another scenario or of other ratings"):
        build_rated_scenario(sources, out, tiny_scenario)


def test_a_copied_folder_has_the_same_world(tiny_scenario: Scenario, tmp_path: Path) -> None:
    scenario, _ = build_rated_scenario(RatedSources(*write_tables(tmp_path)), tmp_path / "out", tiny_scenario)
    copy = tmp_path / "copy"
    copy.mkdir()
    copy_world(scenario, copy)
    scenario.save(copy / "scenario.yaml")
    one, two = RatedWorld(scenario), RatedWorld(Scenario.load(copy))
    np.testing.assert_array_equal(one.item_views["ranking"], two.item_views["ranking"])
    copy_world(tiny_scenario, tmp_path)  # a generated world has nothing to copy
    assert not (tmp_path / FILE).exists()


def test_a_world_of_ratings_is_no_base_for_another(tiny_scenario: Scenario, tmp_path: Path) -> None:
    sources = RatedSources(*write_tables(tmp_path))
    scenario, _ = build_rated_scenario(sources, tmp_path / "out", tiny_scenario)
    with pytest.raises(InputError, match="its users and items come from ratings"):
        build_rated_scenario(sources, tmp_path / "other", scenario)


def test_attributes_of_other_items_are_refused(tiny_scenario: Scenario, tmp_path: Path) -> None:
    ratings, items = write_tables(tmp_path)
    items.write_text("itemId,genres\nA1,drama\nA2,comedy\n")
    with pytest.raises(InputError, match=r"items\.csv: describes no item of .*ratings\.csv\.gz; check the ids"):
        build_rated_scenario(RatedSources(ratings, items), tmp_path / "out", tiny_scenario)


def test_the_printed_report_warns_of_factors_that_are_no_better_than_a_baseline(
    tiny_scenario: Scenario, tmp_path: Path
) -> None:
    make_ratings(noise=1.0, taste=0.0).to_csv(tmp_path / "r.csv", index=False)
    _, report = build_rated_scenario(RatedSources(tmp_path / "r.csv"), tmp_path / "out", tiny_scenario)
    for beats in (True, False):  # of pure noise either may happen
        report["factorisation"]["beats_baselines"] = beats
        lines = "\n".join(rated_report_lines(report))
        assert ("warning: the factors are no better than user and item biases" in lines) is not beats
    assert "0 users and 0 items with fewer than 5, 0 items without any" in lines
