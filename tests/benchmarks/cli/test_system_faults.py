"""Faults of the system around a command: full disks, closed pipes, missing packages, other processes. One line each."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.cli.main import main
from benchmarks.suite import records
from benchmarks.suite.own_experiments import mark_own, may_import
from benchmarks.suite.registry import experiment_names
from benchmarks.suite.staleness import user_module_file
from marca_env.utils.foreign_agents import foreign_agents
from tests.agents.policy.test_trust import write_policy
from tests.helpers.paths import ROOT
from tests.marca_env.utils.test_files import holder

LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from benchmarks.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
"""Program: a command whose files cannot grow beyond a limit, as on a full disk."""
WITHOUT_RAY = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
sys.meta_path.insert(0, Hidden())
from benchmarks.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def run(
    program: str, *arguments: object, stdout: int | None = subprocess.PIPE, cwd: Path | None = None
) -> tuple[int, list[str]]:
    """Run a program; return its status and what it writes to stderr, without lines of progress."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, cwd=cwd, env=environment)
    return done.returncode, [line for line in done.stderr.splitlines() if not re.search(r": \d+ of \d+$", line)]


@pytest.mark.slow
def test_a_full_disk_in_a_command_is_one_line_and_loses_no_record(tmp_path: Path) -> None:
    status, errors = run(LIMITED, 20_000, "bench", "reference", "--out", tmp_path)
    assert status == 2
    (line,) = errors
    assert line.startswith(f"marca: error: {tmp_path}")
    assert "cannot be written (File too large); raise the limit" in line
    name = next(name for name in experiment_names() if (tmp_path / name).is_dir())
    status, errors = run(LIMITED, 10**9, "bench", "reference", "--out", tmp_path)
    assert (status, errors) == (0, [])
    assert records.read(tmp_path / name)


@pytest.mark.slow
def test_a_full_disk_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    game = ["--env", "games/two_step-v0", "--config", "gru=null", "hidden=[8]", "learning_starts=64"]
    once = ["train", "--algo", "VDN", *game, "updates_per_iteration=2", "--out", str(tmp_path)]
    assert main([*once, "--stop", "training_iteration=1"]) == 0
    (checkpoint,) = tmp_path.glob("checkpoint_*")
    size = max(path.stat().st_size for path in checkpoint.rglob("*") if path.is_file())
    shutil.rmtree(tmp_path / "events", ignore_errors=True)
    program = f"""
import resource, sys
from agents.rllib.training import algorithm_checkpoints
save = algorithm_checkpoints.save_checkpoint
from agents.rllib.training import training
def full(*args, **options):
    resource.setrlimit(resource.RLIMIT_FSIZE, ({size // 2}, resource.RLIM_INFINITY))
    return save(*args, **options)
training.save_checkpoint = full
from benchmarks.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
    status, errors = run(program, "train", "--resume", tmp_path, "--stop", "training_iteration=2")
    assert status == 2
    (line,) = [line for line in errors if line.startswith("marca: ")]  # others are of ray's own log
    assert "checkpoint_000002: cannot be written (File too large)" in line
    assert not any("Traceback" in line for line in errors)
    assert [path.name for path in tmp_path.glob("*checkpoint_*")] == ["checkpoint_000001"]
    assert main(["train", "--resume", str(tmp_path), "--stop", "training_iteration=2"]) == 0


@pytest.mark.slow
def test_an_output_without_space_and_a_closed_pipe_are_no_tracebacks() -> None:
    program = "import sys; from benchmarks.cli.main import main; sys.exit(main(sys.argv[1:]))"
    with Path("/dev/full").open("w") as full:
        status, errors = run(program, "bench", "list", stdout=full.fileno())
    assert status == 2
    assert errors == [
        "marca: error: the output: No space left on device; free some space there, or give another folder"
    ]
    read, write = os.pipe()
    os.close(read)
    status, errors = run(program, "bench", "list", stdout=write)
    os.close(write)
    assert (status, errors) in ((141, []), (1, []))  # rich ends the program itself with 1


@pytest.mark.slow
@pytest.mark.parametrize("experiment", ["games", "ranking"])
def test_the_bench_without_ray_is_one_line(experiment: str, tmp_path: Path) -> None:
    status, errors = run(WITHOUT_RAY, "bench", "run", experiment, "--quick", "--seeds", 0, "--out", tmp_path)
    assert status == 2
    assert errors == ["marca: error: agents.rllib needs ray; install it with: pip install 'marca-env[rllib]'"]


def test_another_module_named_agents_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert foreign_agents() is None
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text('"""Agents of another package."""\nraise SystemExit(3)\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["headroom"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"marca: error: the module 'agents' in {tmp_path / 'agents' / '__init__.py'} is another one")
    status, errors = run("import marca_env", cwd=tmp_path)
    assert status == 0
    assert "is another one" in errors[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--algo", "VDN", "--env", "games/two_step-v0", "--out"],
        ["simulate", "--out"],
        ["balance", "--out"],
        ["fit", "--out"],
        ["testbench", "--overwrite", "--out"],
    ],
    ids=lambda command: command[0],
)
def test_a_second_process_on_an_output_is_refused(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("log.csv" if command[0] == "testbench" else "out")
    with holder(out, is_file=command[0] == "testbench") as first:
        assert main([*command, str(out)]) == 2
    assert f"marca: error: {out}: in use by process {first.pid} on " in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_process_on_the_records_of_an_experiment_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with holder(tmp_path / "games") as first:
        assert main(["bench", "run", "games", "--quick", "--seeds", "0", "--out", str(tmp_path)]) == 2
    assert f"in use by process {first.pid} on " in capsys.readouterr().err


def test_a_report_imports_no_module_that_records_of_others_are_named_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    marker, name = tmp_path / "marker", "payload_of_a_report"
    (tmp_path / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    (tmp_path / f"{name}_package").mkdir()
    (tmp_path / f"{name}_package" / "__init__.py").write_text(
        f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n"
    )
    (tmp_path / f"{name}_package" / "inner.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (folder := tmp_path / "bench" / name).mkdir(parents=True)
    case = {"method": f"{name}_package.inner.X", "seed": 0}
    line = {"case": case, "numbers": {"a": 1}, "seconds": 1.0, "cpu_seconds": 1.0, "about": {}}
    (folder / records.FILE).write_text(json.dumps(line) + "\n")
    assert main(["bench", "report", "--out", str(tmp_path / "bench"), "--to", str(tmp_path / "report")]) == 1
    assert f"if you trust it, name it: marca bench report {name}" in capsys.readouterr().err
    assert user_module_file(f"{name}_package.inner") == tmp_path / f"{name}_package" / "inner.py"
    assert not marker.exists()
    assert not may_import(folder, name)
    mark_own(folder, name)
    assert may_import(folder, name)
    assert not may_import(folder, "another")


SLOW_RAY = """
import sys, time, types
import ray._private.node as node
fast = types.SimpleNamespace(**{n: getattr(time, n) for n in dir(time) if not n.startswith("_")})
fast.monotonic = lambda: 60 * time.monotonic()
node.time = fast
def never(*_):
    time.sleep(0.2)
    raise RuntimeError("the node is not known yet")
node.ray._private.services.get_node = never
from benchmarks.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""Program: a command with a ray that never becomes ready; its half minute of patience passes in half a second."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--algo", "VDN", "--env", "games/two_step-v0", "--config", "num_env_runners=1", "--out"],
        ["bench", "run", "marl", "--quick", "--seeds", "0", "--methods", "PPO", "--out"],
    ],
    ids=["train", "bench"],
)
def test_a_ray_that_does_not_start_in_time_is_one_line_once(command: list[str], tmp_path: Path) -> None:
    status, errors = run(SLOW_RAY, *command, tmp_path)
    assert status == 2
    (line,) = errors
    assert line.startswith("marca: error: ray could not be started (The current node timed out during startup.")
    assert "try again when the machine is less busy" in line


@pytest.mark.slow
@pytest.mark.parametrize("command", [["evaluate", "."], ["simulate", "--checkpoint", ".", "--policies", "marca-mpc"]])
def test_modules_in_a_downloaded_folder_are_not_imported(command: list[str], tmp_path: Path) -> None:
    """A file that is named after a package must not be executed in its place, wherever the command is run."""
    marker, folder = tmp_path / "marker", tmp_path / "downloaded"
    write_policy(folder)
    description = json.loads((folder / "policy.json").read_text())
    description["environment"] = {"env": "mpe2.simple_spread_v3", "env_config": {}}
    (folder / "policy.json").write_text(json.dumps(description))
    for name in ("mpe2", "matplotlib", "scipy", "ray", "jinja2", "my_module"):
        (folder / f"{name}.py").write_text(f"import pathlib\npathlib.Path({str(marker)!r}).touch()\n")
    program = "import sys; from benchmarks.cli.main import main; sys.exit(main(sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    interpreter = [sys.executable, "-P", "-c", program]  # as the installed command: the folder is not on the path
    done = subprocess.run([*interpreter, *command], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("marca: error: ")
    assert not marker.exists()
