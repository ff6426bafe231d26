"""What the demo prints of a resource, and what it says instead of a traceback."""

import io
from pathlib import Path
from typing import Any

import httpx
import pytest
from rich.console import Console
from typer.testing import CliRunner

from demo import __main__ as command
from demo.kubectl import Kubectl, KubectlFailed, NotReached
from demo.tell import Story, story_of


def resource(phase: str, reason: str, message: str) -> dict[str, Any]:
    ready = {"type": "Ready", "status": "False", "reason": reason, "message": message}
    return {
        "kind": "LoRAAdapter",
        "metadata": {"name": "finance-v1"},
        "status": {"phase": phase, "conditions": [ready]},
    }


def printed(*, terminal: bool) -> tuple[Story, io.StringIO]:
    screen = io.StringIO()
    return Story(console=Console(file=screen, width=40, force_terminal=terminal, color_system=None)), screen


@pytest.mark.parametrize(
    ("phase", "reason", "message", "line"),
    [
        pytest.param("Merging", "Merging", "Job j", "LoRAAdapter finance-v1: Merging Job j", id="a reason like its phase is left out"),
        pytest.param("Failed", "WrongBase", "another base", "LoRAAdapter finance-v1: Failed (WrongBase) another base", id="others stay"),
        pytest.param("", "Pending", "", "", id="without a phase there is nothing to say"),
    ],
)  # fmt: skip
def test_a_resource_in_one_line(phase: str, reason: str, message: str, line: str) -> None:
    assert story_of(resource(phase, reason, message)) == line


def test_brackets_of_a_message_are_text_and_no_markup() -> None:
    story, screen = printed(terminal=False)
    story.seen(resource("Failed", "Invalid", "[metadata.name: bad] and [/claims/models]"))
    story.table("Seen", ["what"], [["[/claims]"]])
    assert "[metadata.name: bad] and [/claims/models]" in screen.getvalue()
    assert "[/claims]" in screen.getvalue()


def test_on_a_terminal_a_long_line_breaks_between_words_and_stays_indented() -> None:
    story, screen = printed(terminal=True)
    story.say("word " * 20)
    lines = screen.getvalue().rstrip().splitlines()
    assert len(lines) > 1
    assert all(line.startswith("   word") and line.split() == ["word"] * len(line.split()) for line in lines)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_a_command_to_copy_is_one_line(terminal: bool) -> None:
    story, screen = printed(terminal=terminal)
    story.type_this(f"curl {'x' * 90} -d '{{\"a\": [1]}}'")
    assert screen.getvalue() == f"   curl {'x' * 90} -d '{{\"a\": [1]}}'\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        pytest.param(KubectlFailed('context "x" [/y]'), 'context "x" [/y]', id="kubectl's own words, brackets too"),
        pytest.param(httpx.ConnectError("refused"), "refused", id="the Gateway does not answer"),
        pytest.param(KeyboardInterrupt(), "was stopped", id="Ctrl-C"),
    ],
)
@pytest.mark.parametrize("verb", ["up", "down"])
def test_what_goes_wrong_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, verb: str, error: BaseException, said: str
) -> None:
    class Broken:
        kubectl: Any = None
        gateway_url, shell, base_model = "", "", Path()

        def __init__(self, **_: object) -> None: ...

        def prepare(self) -> None:
            raise error

        remove = prepare

    monkeypatch.setattr(command, "DevclusterPlace", Broken)
    done = CliRunner().invoke(command.app, [verb])
    assert done.exit_code == 1
    assert said in done.output
    assert "Run it again" in done.output


def test_a_cluster_of_ones_own_without_images_is_told_what_is_missing() -> None:
    done = CliRunner().invoke(command.app, ["up", "--context", "x"])
    assert done.exit_code == 1
    assert "OPERATOR_IMAGE" in done.output


@pytest.mark.parametrize(
    ("found", "said"),
    [
        pytest.param(resource("Validating", "Validating", "Job j"), "LoRAAdapter finance-v1: Validating Job j", id="what it said last"),
        pytest.param(None, "loraadapter finance-v1 is not there", id="it never came"),
    ],
)  # fmt: skip
def test_what_did_not_come_in_time_is_told_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, found: dict[str, Any] | None, said: str
) -> None:
    kubectl = Kubectl(binary=Path("kubectl"))
    monkeypatch.setattr(kubectl, "get", lambda *_, **__: found)
    with pytest.raises(NotReached) as raised:
        kubectl.wait("loraadapter", "finance-v1", namespace="finance", until=lambda _: False, seconds=-1)
    assert str(raised.value).endswith(said)
