"""`lora-job prune` on the command line."""

import json
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from lora_job.digest import parse_digest
from lora_job.files import check_directory
from lora_job.outcome import Done, Infrastructure, Refused
from lora_job.reasons import Reason

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command()(prune)


def prune(
    store: Annotated[Path, typer.Argument(help="The store: the directory of spec.artifact.store.")],
    *,
    namespace: Annotated[str, typer.Option(help="Namespace whose artifacts are looked at.")],
    keep: Annotated[list[str] | None, typer.Option(help="NAME/BUILDHASH that a LoRAAdapter names; repeat it.")] = None,
    keep_digest: Annotated[list[str] | None, typer.Option(help="sha256:… that a revision names; repeat it.")] = None,
    keep_all: Annotated[
        list[str] | None, typer.Option(help="NAME of a LoRAAdapter that has published nothing yet; repeat it.")
    ] = None,
    keep_source: Annotated[
        list[str] | None, typer.Option(help="sha256:… of a source that a spec names; repeat it.")
    ] = None,
    keep_sources: Annotated[bool, typer.Option("--keep-sources", help="Leave all cached sources alone.")] = False,
    min_age: Annotated[float, typer.Option(min=0, help="Seconds; what is younger stays.")] = 3600,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this nothing is changed.")] = False,
) -> Done:
    """Show, or with --delete remove, what nobody names any more; needs no torch."""
    from lora_job.prune.remove import remove  # noqa: PLC0415
    from lora_job.prune.survey import Entry, Named, survey  # noqa: PLC0415

    if not namespace or "/" in namespace or namespace.startswith("."):
        raise Refused(Reason.INVALID_OPTION, f"--namespace: found {namespace!r}, expected the name of a namespace")
    named = Named(
        namespace=namespace,
        artifacts=frozenset(_checked(text) for text in keep or ()),
        digests=_digests("--keep-digest", keep_digest),
        unfinished=frozenset(keep_all or ()),
        sources=_digests("--keep-source", keep_source),
        all_sources=keep_sources,
    )
    root = check_directory(store, what="store")
    entries = survey(root, named=named, now=time.time(), min_age=min_age)
    failures: dict[Entry, OSError] = {}
    gone = set(remove(entries, failed=failures.__setitem__)) if delete else set()
    for entry in entries:
        action = "removed" if entry in gone else ("kept" if entry.keep else "unneeded")
        line = {
            "kind": str(entry.kind),
            "path": entry.path.relative_to(root).as_posix(),
            "bytes": entry.bytes,
            "digest": entry.digest,
            "action": action,
            "why": str(failures.get(entry, entry.keep)),
        }
        sys.stdout.write(json.dumps(line, ensure_ascii=False) + "\n")
    done = _done(entries, gone=gone, delete=delete)
    if failures:
        entry, error = next(iter(failures.items()))
        others = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
        message = f"{entry.path}{others}: could not be removed: {error}; {done.message}; remove the cause and run again"
        raise Infrastructure(Reason.OPERATING_SYSTEM, message, figures=done.figures)
    return done


def _done(entries: Any, *, gone: Any, delete: bool) -> Done:
    unneeded = [entry for entry in entries if not entry.keep]
    figures = {
        "kept": len(entries) - len(unneeded),
        "unneeded": len(unneeded),
        "unneededBytes": sum(entry.bytes for entry in unneeded),
        "removed": len(gone),
        "removedBytes": sum(entry.bytes for entry in gone),
    }
    words = (
        f"removed {figures['removed']} of {figures['unneeded']} directories, {figures['removedBytes']} bytes"
        if delete
        else f"{figures['unneeded']} directories, {figures['unneededBytes']} bytes, are named by nobody; nothing was removed"
    )
    return Done(message=words, figures=figures)


def _checked(text: str) -> str:
    name, slash, build = text.partition("/")
    if not slash or not name or not build or "/" in build:
        raise Refused(Reason.INVALID_OPTION, f"--keep {text}: expected NAME/BUILDHASH")
    return text


def _digests(option: str, texts: list[str] | None) -> frozenset[str]:
    return frozenset(parse_digest(text, where=option) for text in texts or ())
