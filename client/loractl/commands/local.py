"""merge, validate, inspect, benchmark: `lora-job` on this machine, without a cluster. Every option is passed on as it is."""

from typing import Any

import typer

from loractl.local import become_lora_job

__all__ = ["register"]

PANEL = "On this machine (lora-job)"
HELP = {
    "merge": "Merge adapters into a base directory. All options are those of `lora-job merge`.",
    "validate": "Validate a merged model. All options are those of `lora-job validate`.",
    "inspect": "Show what a merge would do. All options are those of `lora-job inspect`.",
    "benchmark": "Measure the speed of a model. All options are those of `lora-job benchmark`.",
}


def register(app: typer.Typer) -> None:
    """Adds the verbs. `--help` goes to lora-job too: it knows its options."""
    settings: dict[str, Any] = {"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []}
    for verb, text in HELP.items():
        app.command(name=verb, help=text, rich_help_panel=PANEL, context_settings=settings, add_help_option=False)(
            _passed(verb)
        )


def _passed(verb: str) -> Any:
    def command(ctx: typer.Context) -> None:
        become_lora_job(verb, ctx.args)

    return command
