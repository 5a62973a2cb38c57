"""The TestBench against a real HTTP server of known cost, and against a Python function."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from benchmarks.cli.main import main
from marca_env.logs.log_files import read_cost_log
from marca_env.testbench.service import Bucket
from marca_env.testbench.target_config import load_target
from marca_env.testbench.targets import HttpRequest, HttpTarget, metric_clock, process_clock
from marca_env.testbench.testbench import TestBench
from marca_env.utils.errors import InputError
from tests.helpers.paths import HELPERS

MILLISECOND = 1e-3
SERVER = HELPERS / "shop_server.py"


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    """Start a server in a separate process; yield (address, pid)."""
    process = subprocess.Popen([sys.executable, str(SERVER)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}", process.pid
    process.kill()
    process.wait()


def described(request_of: Callable[[int], object], **service: object) -> dict[str, Any]:
    """Return a target file with a base and two queues."""
    base = {"stage": "rank", "cluster": "rank", "component": "base", "request": request_of(0)}
    queues = [
        {**base, "component": "queue", "queue_length": n, "request": request_of(n), "against": request_of(0)}
        for n in (20, 50)
    ]
    return {"buckets": [base, *queues], **service}


def by_path(n: int) -> dict[str, str]:
    return {"path": f"/rank?n={n}"}


def check(log: pd.DataFrame) -> None:
    """Check a base of 1 ms and 0.1 ms a candidate, up to the cost of HTTP and messages."""
    cost = log.groupby(["component", "queue_length"])["cost"].mean() / MILLISECOND
    assert 1.0 < cost["base", 0] < 2.5
    assert 1.5 < cost["queue", 20] < 2.6
    assert 4.2 < cost["queue", 50] < 5.9


@pytest.mark.slow
@pytest.mark.parametrize("clock", ["pid", "cpu_url"])
def test_a_running_http_service_is_measured(server: tuple[str, int], clock: str, tmp_path: Path) -> None:
    url, pid = server
    http = {"url": url, "pid": pid} if clock == "pid" else {"url": url, "cpu_url": f"{url}/metrics"}
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(described(by_path, http=http)))
    out = tmp_path / "costs.csv"
    options = ["--seconds", "0.4", "--repeats", "2", "--utilisation", "0.3", "--out", str(out)]
    assert main(["testbench", "--target", str(tmp_path / "target.yaml"), *options]) == 0
    log = read_cost_log(out)
    assert len(log) == 6
    check(log)


@pytest.mark.slow
def test_a_python_function_is_measured(tmp_path: Path) -> None:
    target = described(lambda n: {"n": n}, python="tests.helpers.shop_server:rank")
    (tmp_path / "target.yaml").write_text(yaml.safe_dump(target))
    check(TestBench(target=load_target(tmp_path / "target.yaml"), seconds=0.3, repeats=2, utilisation=0.3).run())


def test_the_clocks_of_a_service_agree(server: tuple[str, int]) -> None:
    url, pid = server
    assert process_clock(pid)() == pytest.approx(metric_clock(f"{url}/metrics")(), abs=0.2)


def test_a_failing_service_is_named_with_its_address(server: tuple[str, int]) -> None:
    url, pid = server
    target = HttpTarget(url, [], process_clock(pid))
    with pytest.raises(InputError, match=r"GET .*/broken: status 500 Internal Server Error"):
        target.prepare(HttpRequest("/broken"))
    with pytest.raises(InputError, match="is the service running"):
        HttpTarget("http://127.0.0.1:9", [], process_clock(pid)).prepare(HttpRequest())
    with pytest.raises(InputError, match="pid 999999999: no such process"):
        process_clock(999_999_999)
    with pytest.raises(InputError, match="neither a number nor a metric 'cpu'"):
        metric_clock(f"{url}/metrics", "cpu")


def test_more_cores_mean_less_utilisation_and_the_same_cost(server: tuple[str, int]) -> None:
    url, pid = server
    buckets = [Bucket("rank", "rank", "base", 0, 0, HttpRequest("/rank?n=20"))]

    def start(_machines: int) -> HttpTarget:
        return HttpTarget(url, buckets, process_clock(pid), cores=4)

    log = TestBench(target=start, seconds=0.5, repeats=1, qps=100.0).run()
    assert log.loc[0, "cores"] == 4
    assert log.loc[0, "utilisation"] < 0.15  # type: ignore[operator]
    assert 3.0 < log.loc[0, "cost"] / MILLISECOND < 4.6  # type: ignore[operator]


@pytest.mark.slow
def test_a_function_of_the_current_folder_is_found_as_train_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.setenv("PYTHONPATH", "")
    (tmp_path / "my_shop.py").write_text(
        "import time\n\ndef rank(n):\n    end = time.process_time() + 1e-3\n    while time.process_time() < end: pass\n"
        "\ndef broken(n):\n    raise KeyError('shelf')\n"
    )
    target = described(lambda n: n, python="my_shop:rank")
    target["buckets"] = target["buckets"][:1]
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(target))
    assert main(["testbench", "--target", "t.yaml", "--repeats", "1", "--seconds", "0.3", "--out", "c.csv"]) == 0
    assert len(read_cost_log("c.csv")) == 1
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({**target, "python": "my_shop:broken"}))
    capsys.readouterr()
    assert main(["testbench", "--target", "t.yaml", "--repeats", "1", "--out", "d.csv"]) == 2
    error = capsys.readouterr().err
    assert "KeyError: 'shelf' (my_shop.py, line 8)" in error
    assert "Traceback" not in error


BUCKET = {"stage": "rank", "cluster": "rank", "component": "base", "request": {}}
HTTP = {"url": "http://127.0.0.1:1", "pid": 1}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"http": {**HTTP, "url": "http://127.0.0.1:99999"}}, "out of range"),
        ({"http": {**HTTP, "url": "http://127.0.0.1:x"}}, "Port"),
        ({"http": {**HTTP, "url": "http://127.0.0.1:0"}}, "not an address of HTTP"),
        ({"http": {**HTTP, "url": "http://[::1"}}, "IPv6"),
        ({"http": {**HTTP, "url": "ftp://127.0.0.1"}}, "not an address of HTTP"),
        ({"http": {**HTTP, "url": ""}}, "not an address of HTTP"),
        ({"http": {**HTTP, "pid": -1}}, "http: pid is -1"),
        ({"http": {**HTTP, "pid": 0}}, "http: pid is 0"),
        ({"http": {**HTTP, "pid": 2**70}}, "http: pid is"),
        ({"http": {**HTTP, "pid": True}}, "expected a whole number"),
        ({"http": {**HTTP, "pid": 2**31 - 1}}, "no such process"),
        ({"http": {"url": HTTP["url"], "cpu_url": "file:///etc/hostname"}}, "not an address of HTTP"),
        ({"http": {"url": HTTP["url"], "cpu_url": "http://127.0.0.1:1/a b"}}, "127.0.0.1:1/a b"),
        ({"http": {**HTTP, "connections": 0}}, "connections is 0"),
        ({"http": {**HTTP, "connections": 10**9}}, "connections is"),
        ({"http": HTTP, "cores": 0}, "cores is 0"),
        ({"http": HTTP, "buckets": [{**BUCKET, "queue_length": -1}]}, "queue_length is -1"),
        ({"http": HTTP, "buckets": [{**BUCKET, "value_bucket": -1}]}, "value_bucket is -1"),
        ({"http": HTTP, "buckets": [{**BUCKET, "request": {"path": 3}}]}, "expected text"),
        ({"python": "no_module_here:f"}, "No module named"),
        ({"python": "json"}, "write it as my_module:name"),
        ({"python": "json:nothing"}, "unknown name in json"),
        ({"python": "json:__name__"}, "is not a function"),
    ],
)
def test_a_wrong_target_is_one_line(changes: dict[str, Any], expected: str, tmp_path: Path) -> None:
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"buckets": [BUCKET], **changes}))
    with pytest.raises(InputError, match=expected) as caught:
        load_target(tmp_path / "t.yaml")(1)
    assert str(caught.value).count("\n") == 0
