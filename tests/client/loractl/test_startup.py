"""What is imported when: --help must not wait for torch, for kubernetes, nor for rich."""

import subprocess
import sys

import pytest

HEAVY = ("torch", "kubernetes", "aiohttp", "transformers", "rich")


def imported(*arguments: str) -> set[str]:
    """Modules that a run of loractl has loaded at its end."""
    program = (
        "import sys\n"
        "from loractl.cli import app\n"
        "try:\n    app(sys.argv[1:], prog_name='loractl')\n"
        "finally:\n    print('\\n'.join(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    return set(done.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], ["workflow", "--help"], ["nonsense"]], ids=" ".join)
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    found = imported(*arguments)
    assert "loractl.cli" in found
    assert [name for name in HEAVY if name in found] == []


def test_a_command_without_a_cluster_imports_no_torch(tmp_path: object) -> None:
    found = imported("get", "--kubeconfig", f"{tmp_path}/nowhere")
    assert "torch" not in found
    assert "transformers" not in found


def test_the_local_verbs_become_lora_job_and_pass_everything_on() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loractl", "merge", "--base", "/a", "--nobody-knows-this"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("lora-job: InvalidUsage:")
    assert "--nobody-knows-this" in done.stderr


def test_help_of_a_local_verb_is_lora_jobs_own() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "loractl", "inspect", "--help"], capture_output=True, text=True, check=False
    )
    assert "--allow-unverified-base" in done.stdout
