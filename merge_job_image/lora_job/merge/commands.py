"""`lora-job inspect` and `lora-job merge` on the command line."""

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
