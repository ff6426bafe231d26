"""Which base and adapters a model is compared with: the given ones, or those its manifest names while they are the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from lora_job.outcome import Refused
from lora_job.validate.recipe import Manifest, Recipe, Source

Digest = Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What the model is held against; `base` None means an unpaired run."""

    base: Path | None
    base_digest: str
    adapters: tuple[Path, ...]
    adapter_digests: tuple[str, ...]
    recipe: Recipe
    notes: tuple[str, ...]
    """Why something a manifest names was not used."""


def _given(path: Path, *, option: str) -> Path:
    if not path.is_dir():
        raise Refused("SourceNotFound", f"{option} {path}: expected a model directory, found nothing of that kind")
    return path


def _unchanged(source: Source, *, digest: Digest, what: str) -> tuple[str, str]:
    """(digest, "") when a recorded source is still what it was, else ("", why not)."""
    if not source.path.is_dir():
        return "", f"the {what} of merge.json is not at {source.path} any more: name it with --{what}"
    found = digest(source.path)
    if source.digest and found != source.digest:
        return "", f"the {what} at {source.path} is not the one that was merged: its digest changed"
    return found, ""


def _from_manifest(sources: Sequence[Source], *, digest: Digest, what: str) -> tuple[list[Path], list[str], list[str]]:
    paths, digests, notes = [], [], []
    for source in sources:
        found, note = _unchanged(source, digest=digest, what=what)
        if note:
            notes.append(note)
        else:
            paths.append(source.path)
            digests.append(found)
    return paths, digests, notes


def resolve(*, base: Path | None, adapters: Sequence[Path], manifest: Manifest | None, digest: Digest) -> Compared:
    """The sources of a comparison; given ones win over the manifest's."""
    notes: list[str] = []
    recorded = manifest.adapters if manifest else ()
    if base is not None:
        base_digest = digest(_given(base, option="--base"))
    elif manifest is not None and manifest.base is not None:
        base_digest, note = _unchanged(manifest.base, digest=digest, what="base")
        base = None if note else manifest.base.path
        notes += [note] if note else []
    else:
        base_digest = ""
    if adapters:
        paths = [_given(path, option="--adapter") for path in adapters]
        digests = [digest(path) for path in paths]
    else:
        paths, digests, missing = _from_manifest(recorded, digest=digest, what="adapter")
        notes += missing
        if missing:
            paths, digests = [], []
    recipe = manifest.recipe if manifest is not None else Recipe(weights=(1.0,) * max(1, len(paths)))
    return Compared(
        base=base,
        base_digest=base_digest,
        adapters=tuple(paths),
        adapter_digests=tuple(digests),
        recipe=recipe,
        notes=tuple(notes),
    )
