"""What is nobody's input: full disks, sources that change, two writers, signals. Exit 1, 143 or 137, and nothing half done."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lora_job.cli import run
from lora_job.merge import pipeline
from lora_job.merge.publish import Partial, open_partial, sync
from tests.job.models import BASE_NAME, write_wide_adapter, write_wide_base
from tests.job.refusing import Place, tree

pytestmark = pytest.mark.engine

DEADLINE_SECONDS = 120
LORA_JOB = [sys.executable, "-m", "lora_job"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB, where the tiny model has no room."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def wide(tmp_path: Path) -> Place:
    return Place(
        root=tmp_path, base=write_wide_base(tmp_path / BASE_NAME), adapter=write_wide_adapter(tmp_path / "adapter")
    )


def ended(capsys: pytest.CaptureFixture[str], *, reason: str, words: tuple[str, ...]) -> str:
    """The one line on stderr; returns stdout."""
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith(f"lora-job: {reason}: "), line
    assert [word for word in words if word not in line] == [], line
    return printed.out


def test_a_full_disk_is_told_before_the_work_and_nothing_stays(
    place: Place, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "merge",
        "--base",
        str(place.base),
        "--adapter",
        str(place.adapter),
        "--output",
        str(small_disk / "out"),
    ]
    assert run(arguments) == 1
    out = ended(capsys, reason="NoSpace", words=("16384 are free", "make room"))
    assert '"stage": "merge"' not in out
    assert list(small_disk.iterdir()) == []


def test_room_for_some_files_is_not_enough(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """A quota is not seen in advance: the file that does not fit is told by the kernel, before a byte of any was merged."""
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "from lora_job.cli import main; main()"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, *place.arguments("merge")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    (line,) = ran.stderr.splitlines()
    assert line.startswith("lora-job: NoSpace: ")
    assert '"stage": "merge"' not in ran.stdout
    assert [path.name for path in place.root.iterdir() if "out" in path.name] == []


def test_an_output_on_a_read_only_volume_is_told(
    place: Place, small_disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    arguments = [
        "merge",
        "--base",
        str(place.base),
        "--adapter",
        str(place.adapter),
        "--output",
        str(small_disk / "out"),
    ]
    assert run(arguments) == 1
    ended(capsys, reason="NotWritable", words=(str(small_disk),))


def shorter(place: Place) -> None:
    path = place.base / "model-00001-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def exchanged(place: Place) -> None:
    """Same size, same time, other file: only the inode tells."""
    path = place.base / "model-00001-of-00002.safetensors"
    found = path.stat()
    fresh = place.base / "fresh"
    fresh.write_bytes(path.read_bytes())
    os.utime(fresh, ns=(found.st_atime_ns, found.st_mtime_ns))
    fresh.replace(path)


CHANGES: list[tuple[str, str, Callable[[Place], object]]] = [
    ("a file that was written to", "config.json", lambda place: (place.base / "config.json").write_text("{}")),
    ("a file that was touched", "config.json", lambda place: os.utime(place.base / "config.json", ns=(1, 1))),
    ("a file that became shorter", "model-00001-of-00002.safetensors", shorter),
    ("a file that was exchanged", "model-00001-of-00002.safetensors", exchanged),
    ("a file that came", "new.txt", lambda place: (place.base / "new.txt").write_text("x")),
    ("a file that went", "adapter_model.safetensors", lambda place: (place.adapter / "adapter_model.safetensors").unlink()),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_a_source_that_changes_while_it_is_read_is_told_and_nothing_is_published(
    place: Place,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    change: Callable[[Place], object],
) -> None:
    write = pipeline._write

    def write_and_change(*arguments: Any, **named: Any) -> Any:
        found = write(*arguments, **named)
        change(place)
        return found

    monkeypatch.setattr(pipeline, "_write", write_and_change)
    assert run(place.arguments("merge")) == 1
    ended(capsys, reason="SourceChanged", words=(name, "run again"))
    assert [path.name for path in place.root.iterdir() if "out" in path.name] == []


def test_a_base_that_shrinks_between_its_header_and_its_data_is_told(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = pipeline._write

    def shrink_and_write(*arguments: Any, **named: Any) -> Any:
        for path in place.base.glob("*.safetensors"):
            os.truncate(path, 600)
        return write(*arguments, **named)

    monkeypatch.setattr(pipeline, "_write", shrink_and_write)
    assert run(place.arguments("merge")) == 1
    ended(capsys, reason="SourceChanged", words=("shorter",))
    assert [path.name for path in place.root.iterdir() if "out" in path.name] == []


def test_a_second_writer_of_the_same_output_is_sent_away_and_disturbs_nothing(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_partial(place.output, build=lambda: "0" * 16) as held:
        (held.path / "work").write_text("of the first")
        before = tree(place.root)
        assert run(place.arguments("merge")) == 1
        ended(capsys, reason="Locked", words=("another merge", ".out.partial"))
        assert tree(place.root) == before
        held.abandon()
    assert run(place.arguments("merge")) == 0


def test_a_build_that_another_writer_publishes_first_is_adopted(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between the look at the output and the lock."""

    @contextmanager
    def late(final: Path, **named: Any) -> Iterator[Partial]:
        monkeypatch.undo()
        assert run(place.arguments("merge")) == 0
        with open_partial(final, **named) as partial:
            yield partial

    monkeypatch.setattr(pipeline, "open_partial", late)
    assert run(place.arguments("merge")) == 0
    assert capsys.readouterr().out.count('"stage": "merge"') == 1
    assert [path.name for path in place.root.iterdir() if "out" in path.name] == ["out"]


def test_an_output_that_is_filled_while_it_is_merged_costs_nothing_that_stays(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = pipeline._write

    def write_and_fill(*arguments: Any, **named: Any) -> Any:
        found = write(*arguments, **named)
        place.output.mkdir()
        (place.output / "notes").write_text("of somebody")
        return found

    monkeypatch.setattr(pipeline, "_write", write_and_fill)
    assert run(place.arguments("merge")) == 1
    ended(capsys, reason="Locked", words=("somebody else",))
    assert [path.name for path in place.root.iterdir() if "out" in path.name] == ["out"]
    assert [path.name for path in place.output.iterdir()] == ["notes"]


def test_a_shard_is_recorded_once_it_is_on_the_disk_and_a_resumed_one_is_brought_there_too(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    finished = Partial.finished

    def synced(path: Path) -> None:
        sync(path)
        events.append(("on the disk", path.name))

    def recorded(partial: Partial, file: str, figures: Any) -> None:
        finished(partial, file, figures)
        events.append(("recorded", file))

    def broken(*_arguments: Any, **_named: Any) -> Any:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(pipeline, "sync", synced)
        patched.setattr(Partial, "finished", recorded)
        patched.setattr(pipeline, "unchanged", broken)
        assert run(place.arguments("merge")) == 1
    files = sorted(path.name for path in place.base.glob("*.safetensors"))
    assert sorted(events) == sorted((kind, file) for file in files for kind in ("on the disk", "recorded"))
    assert all(events.index(("on the disk", file)) < events.index(("recorded", file)) for file in files)
    events.clear()
    monkeypatch.setattr(pipeline, "sync", synced)
    assert run(place.arguments("merge")) == 0
    assert sorted(events) == [("on the disk", file) for file in files]


def test_a_directory_that_goes_before_it_can_be_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir, times = Path.mkdir, iter([True])

    def made_and_gone(path: Path, **named: Any) -> None:
        mkdir(path, **named)
        if next(times, False):
            path.rmdir()

    monkeypatch.setattr(Path, "mkdir", made_and_gone)
    with open_partial(tmp_path / "out", build=lambda: "0" * 16) as partial:
        assert partial.path.is_dir()


def test_a_kernel_that_copies_nothing_is_not_taken_for_the_end_of_a_file(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "copy_file_range", lambda *_arguments: 0)
    assert run(place.arguments("merge")) == 0
    assert run(["verify", str(place.output)]) == 0


def begun(place: Place, process: subprocess.Popen[str]) -> Path:
    """The partial directory of a merge that has begun to write and has not ended."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    partial = place.root / ".out.partial"
    while not (partial / "model.safetensors").exists():
        assert process.poll() is None, f"ended too early: {process.communicate()}"
        assert time.monotonic() < deadline, "never began"
        time.sleep(0.002)
    return partial


def test_sigterm_ends_with_143_one_sentence_and_nothing_left(wide: Place) -> None:
    command = [*LORA_JOB, *wide.arguments("merge")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = begun(wide, process)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 143
    (line,) = error.splitlines()
    assert line.startswith("lora-job: Terminated: ")
    assert not partial.exists()
    assert not wide.output.exists()


def test_sigterm_is_in_the_termination_message(wide: Place) -> None:
    log = wide.root / "log"
    command = [*LORA_JOB, *wide.arguments("merge")]
    environment = os.environ | {"LORA_TERMINATION_LOG": str(log)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    begun(wide, process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_SECONDS)
    message = json.loads(log.read_text())
    assert (message["outcome"], message["reason"]) == ("Terminated", "Terminated")


def test_a_killed_worker_is_137_publishes_nothing_and_the_next_run_goes_on(wide: Place) -> None:
    """As a container sees it: the shell reports 128 + 9."""
    script = '"$@" & echo $! >"$0"; wait $!; exit $?'
    pid = wide.root / "pid"
    command = ["sh", "-c", script, str(pid), *LORA_JOB, *wide.arguments("merge")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    partial = begun(wide, process)
    os.kill(int(pid.read_text()), signal.SIGKILL)
    process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 137
    assert partial.exists()
    assert not wide.output.exists()
    assert run(wide.arguments("merge")) == 0
    assert run(["verify", str(wide.output)]) == 0
    assert not partial.exists()
