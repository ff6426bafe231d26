"""What merge and inspect print: a bar for a person, a JSON line a second for everybody else, tables of 80 columns, the plan's JSON."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Any

import pytest
import torch

from lora_job.cli import run
from lora_job.progress import Progress
from tests.job.models import BASE_NAME, write_adapter, write_wide_adapter, write_wide_base
from tests.job.refusing import Place

pytestmark = pytest.mark.engine

GOLDEN = Path(__file__).parent / "golden" / "plan.json"
LORA_JOB = [sys.executable, "-m", "lora_job"]
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_a_terminal(command: list[str], *, columns: int = 80) -> tuple[int, str]:
    """Exit code and everything a terminal of that width was sent."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key not in {"COLUMNS", "LINES"}} | {
        "TERM": "xterm"
    }
    process = subprocess.Popen(command, stdin=follower, stdout=follower, stderr=follower, env=environment)
    os.close(follower)
    seen = bytearray()
    while True:
        try:
            block = os.read(leader, 65536)
        except OSError:  # the kernel's way to say that the other side is closed
            break
        if not block:
            break
        seen += block
    os.close(leader)
    return process.wait(), seen.decode()


def shown_lines(seen: str) -> list[str]:
    return [CONTROL.sub("", line).rstrip() for line in re.split(r"[\r\n]+", seen)]


def test_a_person_sees_a_bar_with_bytes_rate_and_remaining_time(tmp_path: Path) -> None:
    place = Place(
        root=tmp_path, base=write_wide_base(tmp_path / BASE_NAME), adapter=write_wide_adapter(tmp_path / "adapter")
    )
    code, seen = in_a_terminal([*LORA_JOB, *place.arguments("merge")])
    lines = shown_lines(seen)
    assert code == 0
    assert max(len(line) for line in lines) <= 80
    bars = [line for line in lines if line.startswith("merge ")]
    assert any(re.search(r"━.* \d+\.\d/\d+\.\d MB .*\d+\.\d MB/s .*\d:\d\d:\d\d$", line) for line in bars), bars
    assert any(re.search(r"100\.7/100\.7 MB", line) for line in bars)
    assert '{"time"' not in seen
    assert "merged and verified" in seen


def test_everybody_else_gets_json_lines_and_nothing_on_stderr(place: Place) -> None:
    ran = subprocess.run([*LORA_JOB, *place.arguments("merge")], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert all(list(line) == ["time", "stage", "done", "total", "unit", "etaSeconds"] for line in lines)
    last = {line["stage"]: line for line in lines}
    assert list(last) == ["read adapter", "merge"]
    assert all(line["done"] == line["total"] > 0 and line["etaSeconds"] == 0 for line in last.values())
    assert {line["unit"] for line in lines} == {"B"}


def test_a_refusal_is_one_line_for_a_process_too(place: Place) -> None:
    """Warnings of a library on stderr would be a second line."""
    (place.adapter / "adapter_model.safetensors").write_bytes(b"short")
    for command in ("merge", "inspect"):
        ran = subprocess.run([*LORA_JOB, *place.arguments(command)], capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert ran.stdout == ""
        assert re.fullmatch(r"lora-job: TruncatedFile: .*adapter_model\.safetensors: 5 bytes .*\n", ran.stderr)


def test_at_most_one_line_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    with Progress("merge", total=80, clock=lambda: now) as progress:
        for _ in range(40):
            now += 0.125
            progress.advance(2)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["done"] for line in lines] == [16, 32, 48, 64, 80, 80]
    assert [line["etaSeconds"] for line in lines[:2]] == [4.0, 3.0]


def test_a_stage_that_failed_does_not_say_that_it_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        with Progress("merge", total=100) as progress:
            progress.advance(40)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        stop()
    assert capsys.readouterr().out == ""


def test_the_table_of_a_plan_groups_layers_and_fits_80_columns(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(place.arguments("inspect")) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    rows = [line.split() for line in lines]
    assert ["model.layers.*.self_attn.q_proj.weight", "2", "LORA", "r=4", "32", "×", "32", "BF16"] in rows
    assert ["model.layers.*.mlp.down_proj.weight", "2", "LORA", "r=4", "32", "×", "48", "BF16"] in rows
    assert any(line.startswith("4 tensors are copied") for line in lines)


def test_a_long_name_is_folded_and_not_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file  # noqa: PLC0415

    module = "model.language_model.layers.0.some_very_long_block_name.another_very_long_block_name.gate_proj"
    base = tmp_path / BASE_NAME
    base.mkdir()
    (base / "config.json").write_text('{"model_type": "llama"}')
    save_file({f"{module}.weight": torch.ones(8, 8)}, base / "model.safetensors")
    adapter = write_adapter(
        tmp_path / "adapter",
        {f"base_model.model.{module}.lora_A.weight": torch.ones(4, 8), f"base_model.model.{module}.lora_B.weight": torch.ones(8, 4)},
    )  # fmt: skip
    assert run(["inspect", "--base", str(base), "--adapter", str(adapter)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line) for line in lines) <= 80
    assert "…" not in "".join(lines)
    joined = "".join(line.split(" ")[0] for line in lines)
    assert f"{module.replace('.0.', '.*.')}.weight" in joined


def plan_of(place: Place, capsys: pytest.CaptureFixture[str], *options: str) -> Any:
    assert run([*place.arguments("inspect"), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_plan_as_json(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """After a wanted change run once with GOLDEN=write and read the difference."""
    text = json.dumps(plan_of(place, capsys), indent=1) + "\n"
    if os.environ.get("GOLDEN") == "write":
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text()


def test_a_plan_does_not_depend_on_where_its_sources_are(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    here = plan_of(place, capsys)
    moved = place.root / "moved"
    moved.mkdir()
    place.base.rename(moved / BASE_NAME)
    place.adapter.rename(moved / "adapter")
    there = Place(root=moved, base=moved / BASE_NAME, adapter=moved / "adapter")
    assert plan_of(there, capsys) == here
