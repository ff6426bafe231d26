"""`loractl`, also `kubectl lora`: adapters and rollouts for people who have a cluster.

Every error ends as one sentence with a way out; a traceback is shown with --debug only. Exit codes: 0 done, 1 infrastructure (worth another
try), 2 wrong input or usage, 3 a gate failed or a rollout was rolled back, 130 interrupted (the cluster goes on).
"""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from lora_client.errors import ClientError
from loractl.commands import doctor, find, local, look, prune, report, request, workflow
from loractl.place import Place
from loractl.session import Context, Debug, Interrupted, Kubeconfig, Namespace
from loractl.verdict import BAD_INPUT, INFRASTRUCTURE

__all__ = ["app", "main"]

INTERRUPTED = 130
PLUGIN_COMPLETION = (
    "kubectl completes this plugin itself, by the program kubectl_complete-lora beside it, once kubectl's own completion is set up "
    "(kubectl completion --help); for loractl run: loractl --install-completion"
)


class Sentences(TyperGroup):
    """A group whose every failure is a sentence and an exit code, for the console script and the test runner alike."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command line; a failure is told on stderr and becomes the exit code."""
        given = list(sys.argv[1:] if args is None else args)
        run = partial(
            super().main, given, prog_name, complete_var, standalone_mode=False, windows_expand_args=windows_expand_args
        )
        code = _attempt(partial(run, **extra), given)
        if standalone_mode:
            sys.exit(code)
        return code

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Verbs under the heading of their group, in the order of their registration."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = str(getattr(command, "rich_help_panel", None) or "Commands")
                panels.setdefault(panel, []).append((name, command.get_short_help_str(limit=200)))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


app = typer.Typer(
    name="loractl",
    cls=Sentences,
    help="Build, validate and roll out LoRA adapters on a cluster; see at a glance what serves and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich's help costs more time to import than all the rest
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(
    ctx: typer.Context,
    *,
    context: Context = "",
    kubeconfig: Kubeconfig = "",
    namespace: Namespace = "",
    debug: Debug = False,
) -> None:
    ctx.obj = Place(context=context, kubeconfig=kubeconfig, namespace=namespace, debug=debug)


for module in (workflow, find, look, report, request, doctor, prune, local):
    module.register(app)


def _attempt(run: Callable[[], Any], arguments: Sequence[str]) -> int:
    """Every way a command can end, as an exit code; the sentence is said on the way."""
    try:
        result = run()
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; that is no failure of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:  # noqa: BLE001 - the last frame before a person: they get a sentence, never a traceback
        if "--debug" in arguments or os.environ.get("LORA_DEBUG"):
            traceback.print_exc()
        sentence, code = _end_of(error)
        sys.stderr.write(f"loractl: {sentence}\n")
        return code
    return result if isinstance(result, int) else 0


def _end_of(error: Exception) -> tuple[str, int]:
    if isinstance(error, Interrupted):
        return f"interrupted: {error}", INTERRUPTED
    if isinstance(error, ClientError):
        return str(error), error.exit_code
    if isinstance(error, TyperException):
        text = getattr(error, "format_message", error.__str__)()
        return f"{' '.join(text.split())} (see {_help_of(error)})", BAD_INPUT
    if isinstance(error, typer.Abort):
        return "stopped; nothing was changed", INFRASTRUCTURE
    text = f"internal error, please report it ({type(error).__name__}: {error}); --debug shows where"
    return text, INFRASTRUCTURE


def _help_of(error: TyperException) -> str:
    ctx = getattr(error, "ctx", None)
    return f"{ctx.command_path if ctx is not None else 'loractl'} --help"


def main() -> None:
    """Console script, under either of its names."""
    plugin = Path(sys.argv[0]).name.startswith("kubectl")
    if plugin and {"--install-completion", "--show-completion"} & set(sys.argv):
        sys.stderr.write(f"kubectl lora: {PLUGIN_COMPLETION}\n")
        sys.exit(BAD_INPUT)
    app(prog_name="kubectl lora" if plugin else "loractl")
