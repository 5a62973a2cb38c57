"""The decision server as replicas of Ray Serve: they agree on the mode, and a killed one is replaced."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import psutil
import pytest

from tests.helpers.cli import refuse
from tests.helpers.decision_server import GOOD, call, decide
from tests.helpers.decision_server import served_process as served
from tests.helpers.policies import save_untrained_policy

serve = pytest.importorskip("ray.serve")


@pytest.mark.slow
@pytest.mark.distributed
def test_replicas_agree_on_the_mode_and_a_killed_one_is_replaced(tmp_path: Path) -> None:
    save_untrained_policy(tmp_path / "policy")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--policy", tmp_path / "policy", "--prices", "retrieval=5,ranking=1", "--timeout", 10, "--port", port]
    with served(*options, "--state", tmp_path / "state", "--ray", "--replicas", 2) as (url, process):
        for _ in range(10):
            assert decide(url, GOOD)["decisions"][0]["status"] == "ok"
        replicas = [p for p in psutil.Process(process.pid).children(recursive=True) if "ServeReplica" in p.cmdline()[0]]
        assert len(replicas) == 2
        replicas[0].kill()
        answers = []
        for _ in range(40):
            answers.append(call(f"{url}/decide", "POST", {"requests": [GOOD]})[0])
            time.sleep(0.05)
        assert answers.count(200) >= 35, answers
        assert call(f"{url}/mode", "PUT", {"mode": "static"})[0] == 200
        time.sleep(1.0)
        assert {decide(url, GOOD)["mode"] for _ in range(10)} == {"static"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--replicas", "2"], "belong to --ray"),
        (["--ray", "--workers", "2"], "use --replicas"),
        (["--ray", "--replicas", "0"], "--replicas is 0"),
        (["--ray", "--address", "nowhere"], "give host:port"),
        (["--ray"], r"no policy.json"),
    ],
)
def test_wrong_options_are_one_line(options, part, capsys):
    assert part in refuse(["serve", "--policy", "none", *options], capsys)
