"""Files: replaced as a whole or not at all, one line for every fault, locks that end with their process."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from marca_env.logs.log_files import write_table
from marca_env.models.cost_model import CostModel
from marca_env.utils import files
from marca_env.utils.errors import InputError, WriteError
from marca_env.utils.files import (
    OWNER,
    atomic_path,
    lock_output,
    parse_json,
    read_json,
    remove_leftovers,
    temporary_path,
    write_json,
)
from marca_env.utils.model_files import read_pair, write_pair

NAMES = ("w.safetensors", "w.json")


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file of this process become larger, as on a disk that is full: a real limit of the system."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_big_json(path: Path) -> None:
    write_json(path, ["x" * 1000] * 100)


def write_big_csv(path: Path) -> None:
    write_table(pd.DataFrame({"a": np.random.default_rng(0).normal(size=30_000)}), path.with_suffix(".csv"))


def write_big_parquet(path: Path) -> None:
    write_table(pd.DataFrame({"a": np.random.default_rng(0).normal(size=30_000)}), path.with_suffix(".parquet"))


def write_big_weights(path: Path) -> None:
    write_pair(path, NAMES, {"a": torch.zeros(30_000)}, {"scale": 2})


WRITERS = {f.__name__: f for f in (write_big_json, write_big_csv, write_big_parquet, write_big_weights)}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_one_line_and_leaves_the_old_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    WRITERS[name](path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with largest_file(10_000), pytest.raises(WriteError) as error:
        WRITERS[name](path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(f"{path}")
    assert "cannot be written (File too large); raise the limit of a file's size (ulimit -f)" in message
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "No space left on device\\); free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "check the folder and its permissions"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_other_faults_name_their_remedy(code: int, remedy: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError, match=remedy), atomic_path(tmp_path / "a.json") as temporary:
        fail_half_way(temporary, code)
    assert list(tmp_path.iterdir()) == []


def test_a_device_without_space_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(WriteError, match=r"No space left on device\); free some space"),
        atomic_path(tmp_path / "a") as p,
    ):
        write_to_full_device(p)


def fail_half_way(path: Path, code: int) -> None:
    path.write_text("half")
    raise OSError(code, os.strerror(code), "elsewhere")


def write_to_full_device(path: Path) -> None:
    path.symlink_to("/dev/full")
    path.write_text("x" * 10_000)


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    return child.pid


def test_leftovers_of_dead_processes_are_removed_and_those_of_living_ones_kept(tmp_path: Path) -> None:
    dead, host = dead_process(), temporary_path(tmp_path / "x").name.split("-")[1]
    old = time.time() - 3600
    mine, hour, fresh = (f".{dead}-{host}-0.model.json", f".{dead}.old.json", f".{dead}.fresh.json")
    other, alive = f".{dead}-{'0' * 8}-0.shared.json", f".{os.getppid()}-{host}-0.model.json"
    for name in (mine, hour, fresh, other, alive, "7.txt", ".hidden", f".{dead}", ".12x.y"):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / hour, (old, old))
    (tmp_path / f".{dead}-{host}-1.folder").mkdir()
    (tmp_path / f".{dead}-{host}-1.folder" / "file").write_text("")
    removed = {path.name for path in remove_leftovers(tmp_path)}
    assert removed == {mine, hour, f".{dead}-{host}-1.folder"}
    assert {p.name for p in tmp_path.iterdir()} == {fresh, other, alive, "7.txt", ".hidden", f".{dead}", ".12x.y"}
    os.utime(tmp_path / other, (old, old))
    assert [path.name for path in remove_leftovers(tmp_path)] == [other]


KILLED = """
import os, signal, sys
from marca_env.utils.files import atomic_path
with atomic_path(sys.argv[1]) as path:
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_cleaned", set())
    assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "a.json")]).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".a.json")
    write_json(tmp_path / "b.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


def test_two_threads_that_write_one_file_have_their_own_temporary_files(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "a") as one, atomic_path(tmp_path / "a") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")
    assert (tmp_path / "a").read_text() == "1"  # the outer one replaced it last


HOLDER = """
import sys, time
from marca_env.utils.files import lock_output
with lock_output(sys.argv[1], is_file=sys.argv[2] == "True"):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def holder(out: Path, *, is_file: bool = False) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of an output."""
    command = [sys.executable, "-c", HOLDER, str(out), str(is_file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "is_file"), [("run", False), ("run.v2", False), ("cost_log.csv", True)])
def test_a_second_process_is_refused_with_the_first_ones_number_and_machine(
    name: str, is_file: bool, tmp_path: Path
) -> None:
    out = tmp_path / name
    with holder(out, is_file=is_file) as first:
        with pytest.raises(InputError) as error, lock_output(out, is_file=is_file):
            pass
        assert f"{out}: in use by process {first.pid} on {socket.gethostname()} since 2" in str(error.value)
        assert "wait until it ends" in str(error.value)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with lock_output(out, is_file=is_file):  # a kill leaves no lock
            pass


def test_a_lock_may_be_taken_twice_by_one_process_and_ends(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with lock_output(out):
        with lock_output(out):
            about = json.loads((out / OWNER).read_text())
            assert about["pid"] == os.getpid()
        assert (out / OWNER).is_file()
        (out / "result").write_text("")
    assert [p.name for p in out.iterdir()] == ["result"]


def test_a_lock_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wrong"), lock_output(tmp_path / "a" / "b"):
        raise InputError("wrong")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="nothing can be written there"), lock_output(tmp_path / "file" / "run"):
        pass


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 100_000, "not valid JSON"),
        ('{"a": 1', "not valid JSON"),
        ("", "not valid JSON"),
        ("\ufeff{}", "not valid JSON"),
    ],
    ids=["lists", "mappings", "digits", "cut", "empty", "mark"],
)
def test_json_that_cannot_be_read_is_one_line_at_once(text: str, message: str, tmp_path: Path) -> None:
    began = time.perf_counter()
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    for call in (lambda: read_json(tmp_path / "a.json", "fit again"), lambda: parse_json(text, "a.json", "fit again")):
        with pytest.raises(InputError) as error:
            call()
        assert "a.json: damaged: " in str(error.value)
        assert message in str(error.value)
        assert str(error.value).endswith("; fit again")
        assert len(str(error.value)) < 400
    assert time.perf_counter() - began < 2


def test_a_giant_or_binary_json_file_is_one_line(tmp_path: Path) -> None:
    with (tmp_path / "a.json").open("wb") as file:
        file.truncate(10 * 1024**3)
    with pytest.raises(InputError, match=r"10240 MiB, more than 64 MiB of JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="not a text file in UTF-8"):
        read_json(tmp_path / "b.json")
    with pytest.raises(InputError, match="no such file"):
        read_json(tmp_path / "c.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path)


def test_a_model_is_saved_and_loaded_with_its_sum(tiny_artefacts: Path, tmp_path: Path) -> None:
    model: Any = CostModel.load(tiny_artefacts / "cost_model")
    model.save(tmp_path)
    description = json.loads((tmp_path / "model.json").read_text())
    assert len(description["weights_sha256"]) == 64
    CostModel.load(tmp_path)
    (tmp_path / "model.json").write_text(json.dumps({**description, "weights_sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"of another model than model\.json"):
        read_pair(tmp_path, ("model.safetensors", "model.json"))
