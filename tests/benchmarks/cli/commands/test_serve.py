"""`marca serve` as a process: it says what is wrong in one line, drains, and keeps its state over a restart."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.serving.fault_drill import workers_of
from benchmarks.serving.plain_client import PlainClient
from benchmarks.serving.server import _bind
from benchmarks.serving.settings import ServeSettings
from tests.helpers.cli import refuse
from tests.helpers.decision_server import GOOD, call, decide
from tests.helpers.decision_server import served_process as served
from tests.helpers.policies import save_untrained_policy


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_share_mode_and_metrics_survive_a_kill_and_keep_their_state(tmp_path: Path) -> None:
    save_untrained_policy(tmp_path / "policy")
    options = ["--policy", tmp_path / "policy", "--prices", "retrieval=5,ranking=1", "--timeout", "10"]
    with served(*options, "--workers", 2, "--state", tmp_path / "state") as (url, process):
        for _ in range(8):
            assert decide(url, GOOD)["decisions"][0]["status"] == "ok"
        page = call(f"{url}/metrics")[1]
        assert 'marca_requests_total{status="ok"} 8.0' in page
        assert call(f"{url}/mode", "PUT", {"mode": "static"})[0] == 200
        time.sleep(1.0)  # the other process follows within a second
        assert {decide(url, GOOD)["mode"] for _ in range(8)} == {"static"}
        killed, other = workers_of(process.pid)
        killed.kill()
        client = PlainClient(url, attempts=3)  # as a load balancer would, it sends a call again that broke
        assert {client.decide([GOOD])["mode"] for _ in range(20)} == {"static"}
        wait_until(lambda: len({*workers_of(process.pid)} - {killed}) == 2, 60.0)
        assert other in workers_of(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) in (0, -signal.SIGTERM)
    with served(*options, "--state", tmp_path / "state", "--enforce", "5%", "--drain", 2) as (url, process):
        assert decide(url, GOOD)["mode"] == "static"  # as saved; the option counts at the first start only
        assert call(f"{url}/prices")[1]["version"] == 1
        assert call(f"{url}/healthz", headers={"host": "example.org"})[0] == 400
        process.send_signal(signal.SIGTERM)
        wait_until(lambda: call(f"{url}/readyz")[0] == 503)
        assert call(f"{url}/readyz")[1]["status"] == "draining"
        assert decide(url, GOOD)["mode"] == "static"  # load balancers know now; the port is still open
        assert process.wait(30) in (0, -signal.SIGTERM)


def wait_until(holds: Callable[[], bool], seconds: float = 2.0) -> None:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.02)
    assert holds()


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--policy", "none"], "no policy.json"),
        (["--policy", "none", "--enforce", "120%"], "give a percentage"),
        (["--policy", "none", "--shadow", "--enforce", "5%"], "not allowed with"),
        (["--policy", "none", "--port", "70000"], "--port is 70000"),
        (["--policy", "none", "--workers", "0"], "--workers is 0"),
        (["--policy", "none", "--max-load", "-1"], "guard for load is -1"),
        (["--policy", "none", "--timeout", "nan"], "--timeout is nan"),
        (["--policy", "none", "--drain", "-1"], "--drain is -1"),
        (["--policy", "none", "--token-file", "none"], "--token-file none"),
        ([], "--policy"),
    ],
)
def test_wrong_options_are_one_line(options, part, capsys):
    assert part in refuse(["serve", *options], capsys)


def test_connections_send_answers_at_once():
    """Without TCP_NODELAY an answer waits 40 ms for the client's acknowledgement."""
    with _bind(ServeSettings("", port=0)) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert "choose another one" in refuse(["serve", "--policy", str(tmp_path), "--port", str(port)], capsys)


def test_a_short_token_and_unreadable_prices_are_refused(tmp_path, capsys):
    save_untrained_policy(tmp_path)
    (tmp_path / "token").write_text("short\n")
    base = ["serve", "--policy", str(tmp_path), "--port", "0", "--static", "0,0,0,0,0"]
    assert "at least 16" in refuse([*base, "--token-file", str(tmp_path / "token")], capsys)
    assert "give cluster=price" in refuse([*base, "--prices", "1,2"], capsys)
    assert "did you mean 'ranking'" in refuse([*base, "--prices", "retrieval=1,rankin=1"], capsys)
