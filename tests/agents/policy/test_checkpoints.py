"""Checkpoint folders: sealed ones are intact, damage is detected, leftovers are removed, the newest are kept."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from agents.policy.checkpoints import (
    MANIFEST,
    checkpoints_in,
    find_fault,
    keep_newest,
    newest_intact,
    remove_leftovers,
    require_no_checkpoints,
    writing_checkpoint,
)
from marca_env.utils.errors import InputError


def write(folder: Path, iteration: int) -> Path:
    """Write a checkpoint with files, subfolders and an empty file."""
    with writing_checkpoint(folder, iteration) as part:
        (part / "state.pkl").write_bytes(bytes(range(256)) * 40)
        (part / "inner" / "deep").mkdir(parents=True)
        (part / "inner" / "deep" / "weights.bin").write_bytes(b"w" * 1000)
        (part / "empty.txt").write_text("")
    return folder / f"checkpoint_{iteration:06d}"


def truncate(checkpoint: Path) -> None:
    """Cut a file."""
    os.truncate(checkpoint / "state.pkl", 5000)


def flip_a_bit(checkpoint: Path) -> None:
    """Change one bit of a file."""
    path = checkpoint / "inner" / "deep" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[500] ^= 1
    path.write_bytes(bytes(data))


def lose_a_file(checkpoint: Path) -> None:
    """Delete a file."""
    (checkpoint / "empty.txt").unlink()


def garble_the_manifest(checkpoint: Path) -> None:
    """Overwrite the manifest with random bytes."""
    (checkpoint / MANIFEST).write_bytes(os.urandom(100))


def shorten_the_manifest(checkpoint: Path) -> None:
    """Cut the manifest."""
    os.truncate(checkpoint / MANIFEST, 30)


def lose_the_manifest(checkpoint: Path) -> None:
    """Delete the manifest."""
    (checkpoint / MANIFEST).unlink()


def put_a_list_for_the_manifest(checkpoint: Path) -> None:
    """Replace the manifest by a JSON list."""
    (checkpoint / MANIFEST).write_text("[1, 2]")


def grow(checkpoint: Path) -> None:
    """Append a byte to a file."""
    with (checkpoint / "state.pkl").open("ab") as handle:
        handle.write(b"x")


DAMAGES: dict[Callable[[Path], None], str] = {
    truncate: "state.pkl has 5000 bytes of 10240",
    grow: "state.pkl has 10241 bytes of 10240",
    flip_a_bit: "inner/deep/weights.bin is damaged",
    lose_a_file: "empty.txt is missing",
    garble_the_manifest: "manifest.json is damaged",
    shorten_the_manifest: "manifest.json is damaged",
    put_a_list_for_the_manifest: "manifest.json is damaged",
    lose_the_manifest: "manifest.json is missing",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_damage_is_detected_and_the_previous_checkpoint_is_used(damage: Callable[[Path], None], tmp_path: Path) -> None:
    before, newest = write(tmp_path, 9), write(tmp_path, 10)
    assert newest_intact(tmp_path) == (newest, {})
    damage(newest)
    assert DAMAGES[damage] in str(find_fault(newest))
    intact, damaged = newest_intact(tmp_path)
    assert intact == before
    assert list(damaged) == [newest]
    damage(before)
    with pytest.raises(InputError, match="all checkpoints are damaged") as refusal:
        newest_intact(tmp_path)
    assert str(refusal.value).count(DAMAGES[damage]) == 2


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with writing_checkpoint(tmp_path, 1) as part:
            (part / "half").write_text("h")
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_new_write_replaces_an_old_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 3)
    truncate(tmp_path / "checkpoint_000003")
    assert find_fault(write(tmp_path, 3)) is None
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint_000003"]


def test_only_leftovers_of_ended_processes_are_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    host = socket.gethostname()
    living = subprocess.Popen(["sleep", "60"])
    try:
        names = {f".part-{host}-{ended.pid}-checkpoint_000001": False}
        names |= {f".part-{host}-{os.getpid()}-checkpoint_000002": False}
        names |= {f".part-{host}-{living.pid}-checkpoint_000003": True}
        names |= {f".part-elsewhere-{ended.pid}-checkpoint_000004": True, ".part-of-something": True}
        for name in names:
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("x")
        assert sorted(p.name for p in remove_leftovers(tmp_path)) == sorted(
            n for n, stays in names.items() if not stays
        )
        assert {p.name for p in tmp_path.iterdir()} == {n for n, stays in names.items() if stays}
    finally:
        living.kill()
        living.wait()


def test_the_newest_checkpoints_are_kept(tmp_path: Path) -> None:
    for iteration in (2, 10, 9, 100):
        write(tmp_path, iteration)
    keep_newest(tmp_path, 2)
    assert [p.name for p in checkpoints_in(tmp_path)] == ["checkpoint_000010", "checkpoint_000100"]


def test_a_folder_with_checkpoints_is_refused(tmp_path: Path) -> None:
    require_no_checkpoints(tmp_path)
    write(tmp_path, 1)
    with pytest.raises(InputError, match="left by an earlier run"):
        require_no_checkpoints(tmp_path)
    with pytest.raises(InputError, match="no checkpoint here"):
        newest_intact(tmp_path / "nowhere")
