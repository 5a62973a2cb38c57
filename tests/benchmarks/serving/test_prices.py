"""Published prices: versions, ages, restarts."""

from __future__ import annotations

import json
import threading

import pytest

from benchmarks.serving.prices import PriceBoard
from marca_env.utils.errors import InputError

CLUSTERS = ("retrieval", "ranking")


def board(now: list[float], **options: float) -> PriceBoard:
    """Return a board whose clock shows ``now[0]``."""
    return PriceBoard(CLUSTERS, clock=lambda: now[0], **options)


def test_prices_age_from_fresh_to_last_good_to_stale():
    now = [1000.0]
    prices = board(now, fresh_seconds=60, hold_seconds=300)
    assert prices.current().state == "stale"  # before the first publication
    assert prices.current().version == 0
    published = prices.publish({"ranking": 2.0, "retrieval": 1.0}, "mpc")
    assert published.prices == (1.0, 2.0)
    assert published.by_cluster(CLUSTERS) == {"retrieval": 1.0, "ranking": 2.0}
    states = {}
    for age in (0, 60, 61, 360, 361):
        status = prices.current(1000.0 + age)
        assert (status.age, status.version, status.prices) == (age, 1, (1.0, 2.0))
        states[age] = status.state
    assert states == {0: "fresh", 60: "fresh", 61: "last-good", 360: "last-good", 361: "stale"}
    assert prices.current(1000.0 - 400).state == "stale"  # the clock was set back


def test_a_publication_may_keep_the_time_of_its_telemetry():
    now = [1000.0]
    prices = board(now)
    prices.publish((1.0, 2.0), "mpc", at=940.0)
    assert prices.current().age == 60.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ((1.0,), "give one number per cluster"),
        ((1.0, -1.0), "'ranking'"),
        ((1.0, float("nan")), "'ranking'"),
        ({"retrieval": 1.0}, "'ranking' has none"),
        ({"retrieval": 1.0, "rankin": 1.0}, "ranking"),
        (("a", "b"), "not an array"),
    ],
)
def test_prices_that_nothing_can_be_decided_with_are_refused_and_change_nothing(wrong, message):
    prices = board([0.0])
    prices.publish((1.0, 2.0), "mpc")
    with pytest.raises(InputError, match=message):
        prices.publish(wrong, "mpc")
    assert prices.latest is not None
    assert prices.latest.version == 1


def test_version_and_prices_survive_a_restart(tmp_path):
    now = [1000.0]
    before = board(now)
    before.publish((1.0, 2.0), "mpc")
    before.publish((1.5, 0.1), "mpc")
    before.save(tmp_path / "prices.json")
    after = board([1030.0])
    after.load(tmp_path / "prices.json")
    assert after.latest == before.latest
    assert after.current().age == 30.0
    assert after.publish((0.0, 0.0), "mpc").version == 3


def test_files_that_are_damaged_or_of_other_clusters_are_one_line(tmp_path):
    path = tmp_path / "prices.json"
    prices = board([0.0])
    prices.publish((1.0, 2.0), "mpc")
    good = prices.state_dict()
    for change, message in (
        ({"clusters": ["a"]}, "clusters"),
        ({"prices": [1.0]}, "prices"),
        ({"prices": None}, "prices"),
        ({"version": -1}, "version"),
        ({"published_at": "now"}, "published_at"),
        ({"format": 7}, "version of the package"),
    ):
        path.write_text(json.dumps({**good, **change}))
        with pytest.raises(InputError, match=message) as caught:
            board([0.0]).load(path)
        assert "remove the file" in str(caught.value)
    path.write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        board([0.0]).load(path)


def test_publications_of_many_threads_get_one_version_each():
    prices = board([0.0])
    versions: list[int] = []

    def publish() -> None:
        versions.extend(prices.publish((1.0, 2.0), "mpc").version for _ in range(200))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 801))
