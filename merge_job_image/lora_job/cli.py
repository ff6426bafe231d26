"""The command line `lora-job`: what users and Jobs call, and how every command ends.

Nothing here imports torch: `lora-job verify` runs in the operator's small image. Command modules register themselves and import their
engines only when called. One sentence on stderr for every error; LORA_DEBUG=1 adds the traceback.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import TyperException

from lora_job.digest import combine, hash_files, parse_digest
from lora_job.files import check_directory, list_files
from lora_job.merge import commands as merge_commands
from lora_job.outcome import (
    Done,
    Ended,
    Infrastructure,
    Refused,
    Terminated,
    raise_on_sigterm,
    write_termination_message,
)
from lora_job.progress import Progress
from lora_job.prune import commands as prune_commands
from lora_job.reasons import Reason
from lora_job.sources import commands as source_commands
from lora_job.strict_json import read_object
from lora_job.validate import commands as validate_commands

__all__ = ["app", "main", "run"]

app = typer.Typer(
    name="lora-job",
    help="Merge LoRA adapters into a base model, prove that the result is right, and validate it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Keeps `lora-job` a group of commands."""


@app.command()
def verify(
    directory: Annotated[Path, typer.Argument(help="Model directory.")],
    digest: Annotated[str, typer.Option(help="sha256:… that it must have; otherwise merge.json's.")] = "",
) -> Done:
    """Read every file of a model once and compare its digest; needs no torch."""
    root = check_directory(directory, what="model")
    expected = parse_digest(digest, where="--digest") if digest else _recorded_digest(root)
    facts = list_files(root)
    total = sum(fact.size for fact in facts)
    with Progress("verify", total=total, unit="B") as progress:
        found = combine(hash_files(facts, tick=progress.advance))
    if expected is None:
        raise Refused(
            Reason.INVALID_OPTION,
            f"{root} has no merge.json to compare with; its digest is {found}: name the one you expect with --digest",
        )
    if found != expected:
        raise Refused(
            Reason.DIGEST_MISMATCH,
            f"{root}: expected digest {expected}, found {found}; the model is not the one that was published",
        )
    return Done(message=f"{root} has digest {found}", artifact={"digest": found, "sizeBytes": total})


def _recorded_digest(root: Path) -> str | None:
    """None: it is no merge's output, but a source, and nothing says what its digest was."""
    manifest = root / "merge.json"
    if not manifest.is_file():
        return None
    output = read_object(manifest, reason=Reason.INVALID_MANIFEST).get("output")
    recorded = output.get("digest") if isinstance(output, dict) else None
    if not isinstance(recorded, str):
        raise Refused(Reason.INVALID_MANIFEST, f"{manifest}: field 'output.digest': expected sha256:…, found nothing")
    return parse_digest(recorded, where=f"{manifest}: field 'output.digest'")


merge_commands.register(app)
source_commands.register(app)
validate_commands.register(app)
prune_commands.register(app)


_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def _end_of(error: Exception) -> Ended:
    """The sentence for an exception that no command meant for a person."""
    if isinstance(error, TyperException):
        text = getattr(error, "format_message", error.__str__)()
        return Refused(Reason.INVALID_USAGE, f"{text} (see lora-job --help)")
    _show_traceback()
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        if error.errno in _FULL:
            return Infrastructure(Reason.NO_SPACE, f"{where}{error.strerror}; make room and run again")
        return Infrastructure(Reason.OPERATING_SYSTEM, f"{where}{error.strerror or error}")
    if isinstance(error, MemoryError):
        return Infrastructure(Reason.OPERATING_SYSTEM, "out of memory; give the command more, or lower --workers")
    kind = type(error).__name__
    return Infrastructure(
        Reason.INTERNAL, f"internal error, please report it ({kind}: {error}); LORA_DEBUG=1 shows where"
    )


def _attempt(arguments: Sequence[str]) -> Done | Ended | int:
    """Every way a command can end, as a value. An int is the exit code of --help and the like."""
    try:
        result = app(args=list(arguments), prog_name="lora-job", standalone_mode=False)
    except Ended as ended:
        return ended
    except (KeyboardInterrupt, typer.Abort):
        return Terminated(Reason.TERMINATED, "interrupted; nothing was published")
    except Exception as error:  # noqa: BLE001 - the last frame before a person: they get a sentence, never a traceback
        return _end_of(error)
    return result if isinstance(result, Done | int) else 0


def _show_traceback() -> None:
    if os.environ.get("LORA_DEBUG"):
        traceback.print_exc()


def run(arguments: Sequence[str]) -> int:
    """One command; returns its exit code."""
    raise_on_sigterm()
    end = _attempt(arguments)
    if isinstance(end, int):
        return end
    write_termination_message(end)
    if isinstance(end, Done):
        return 0
    sys.stderr.write(f"lora-job: {end.reason}: {end.message}\n")
    return end.exit_code


def main() -> None:
    """Console script."""
    sys.exit(run(sys.argv[1:]))
