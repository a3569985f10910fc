"""Refusals of a state that would otherwise be replaced by an empty one, and the creation of files beside it."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from processes import wait_until
from projects import ProjectFolder

from bioforge.core.errors import NoSpaceError, StateError
from bioforge.simulator import Simulator, SimulatorOptions
from bioforge.store import Store


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bioforge.db"


def _refused(path: Path, text: str, *, reading: bool = True) -> None:
    """Check that opening is refused, and changes nothing in the folder."""
    before = {file: file.lstat() for file in path.parent.iterdir() if file.name != "bioforge.db.lock"}
    for opened in (Store.open, Store.read) if reading else (Store.open,):
        with pytest.raises(StateError, match=text) as caught:
            opened(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2
    after = {file: file.lstat() for file in path.parent.iterdir() if file.name != "bioforge.db.lock"}
    assert {file: found.st_size for file, found in after.items()} == {f: found.st_size for f, found in before.items()}


def test_a_log_without_its_database_is_refused(path: Path) -> None:
    path.with_name("bioforge.db-wal").write_bytes(b"x" * 4096)
    _refused(path, "bioforge.db-wal: this is a part of a state with paid answers, and it has no database")


def test_an_emptied_database_is_refused(path: Path) -> None:
    path.touch()
    _refused(path, r"bioforge.db: the state is empty \(0 bytes\)")
    path.with_name("bioforge.db-wal").write_bytes(b"x" * 4096)
    _refused(path, "its database is empty")


def test_a_fifo_is_refused(path: Path) -> None:
    os.mkfifo(path)
    _refused(path, "is a FIFO or a device, not a state file")


def test_a_folder_is_refused(path: Path) -> None:
    path.mkdir()
    _refused(path, "is a folder, not a state file")


def test_a_second_name_is_refused_for_writing(path: Path) -> None:
    Store.open(path).close()
    other = path.with_name("other.db")
    os.link(path, other)
    _refused(other, r"the state has 2 names \(hard links\)", reading=False)
    Store.read(other).close()


def test_another_path_to_the_same_file_is_in_use(path: Path, tmp_path: Path) -> None:
    """The lock files differ; the byte that is locked in the database is the same."""
    Store.open(path).close()
    folder = tmp_path / "other"
    folder.mkdir()
    with Store.open(path):
        path.with_name("bioforge.db.lock").unlink()
        _refused(path, "in use by another bioforge process", reading=False)
    Store.open(path).close()


@pytest.mark.parametrize("suffix", ["-wal", "-shm", "-journal", ".lock"])
def test_a_link_beside_the_state_is_refused(path: Path, tmp_path: Path, suffix: str) -> None:
    Store.open(path).close()
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    beside = path.with_name(path.name + suffix)
    beside.unlink(missing_ok=True)
    beside.symlink_to(victim)
    with pytest.raises(StateError, match=f"bioforge.db{suffix}: is a link"):
        Store.open(path)
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("suffix", ["-room", "-new"])
def test_a_link_in_the_place_of_a_new_file_is_replaced(path: Path, tmp_path: Path, suffix: str) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    path.with_name(path.name + suffix).symlink_to(victim)
    with Store.open(path) as store:
        store.reserve_space(4096)
        assert stat.S_ISREG(path.with_name("bioforge.db-room").lstat().st_mode)
    assert victim.read_text() == "theirs"
    assert {file.name for file in tmp_path.iterdir()} <= {"victim", "bioforge.db", "bioforge.db.lock"}


def test_a_state_that_was_cut_off_while_it_was_made_is_made_again(path: Path) -> None:
    for suffix in ("", "-wal", "-journal"):
        path.with_name(f"bioforge.db-new{suffix}").write_bytes(b"half")
    Store.open(path).close()
    with Store.read(path) as store:
        assert store.value("SELECT count(*) FROM artists") == 0
    assert not list(path.parent.glob("*-new*"))


def test_a_new_state_is_complete_without_its_log(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with Store.open(path):
        shutil.copy(path, copy)
    with Store.read(copy) as store:
        assert store.value("SELECT count(*) FROM artists") == 0


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS])
def test_a_file_system_without_locks_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "fcntl", refuse)
        patched.setattr(fcntl, "lockf", refuse)
        with pytest.raises(StateError, match=r"bioforge\.db: cannot be locked: its file system has no locks"):
            Store.open(path)
    Store.open(path).close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB; only root can have one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_read_only_disk_can_be_read_and_is_refused_for_writing(disk: Path) -> None:
    with Simulator() as server:
        project = ProjectFolder(disk, server)
        project.write("artists.csv", "artist_id,artist_name,artist_data\n1,Artist,\n")
        project.run("run").ok()
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        for command in ("status", "export", "why 1", "audit"):
            project.run(*command.split()).ok()
        for command in ("run -B", "plan", "gc --yes"):
            refused = project.run(*command.split())
            assert refused.code == 2
            assert f"{disk}/bioforge.db: cannot be written: Read-only file system" in refused.err
            assert "hint: the disk is read-only" in refused.err
        assert project.charged() == 1


def test_a_full_disk_leaves_no_half_state(disk: Path) -> None:
    path, filler = disk / "bioforge.db", disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(4096))
    with pytest.raises(NoSpaceError) as caught:
        Store.open(path)
    assert "free some space" in caught.value.hint
    filler.unlink()
    Store.open(path).close()
    assert {file.name for file in disk.iterdir()} <= {"bioforge.db", "bioforge.db.lock"}


def test_files_of_a_run_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    """Also with an umask that lets everybody read. Files that exist keep their mode."""
    (tmp_path / "old.log").touch(0o644)
    with Simulator(SimulatorOptions(latency=0.05)) as server:
        project = ProjectFolder(tmp_path, server)
        rows = "".join(f"{number},Artist {number},\n" for number in range(60))
        project.write("artists.csv", "artist_id,artist_name,artist_data\n" + rows)
        process = project.begin("run", "--log-file", "run.log")
        wait_until(lambda: project.charged() >= 8, "the first answers")
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        assert process.end().code == 0
        for name in ("", "-wal", "-shm", "-room", ".lock"):
            assert modes[f"bioforge.db{name}"] == 0o600, name
        assert modes["run.log"] == 0o600
        project.run("batch", "jsonl", "-o", "lines.jsonl").ok()
        project.run("batch", "list").ok()
        (log,) = (tmp_path / "logs").iterdir()
        for file in (tmp_path / "lines.jsonl", log):
            assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        (tmp_path / "bioforge.db").chmod(0o664)
        project.run("plan").ok()
        project.run("run", "--log-file", "old.log").ok()
    assert stat.S_IMODE((tmp_path / "bioforge.db").stat().st_mode) == 0o664
    assert stat.S_IMODE((tmp_path / "old.log").stat().st_mode) == 0o644
