"""Is a directory still the model that was published? What the serving pod's init step asks. No torch."""

import json
from pathlib import Path

from lora_job.digest import digest_directory, list_files
from lora_job.outcome import Refused
from lora_job.progress import Progress

__all__ = ["verify_directory"]


def verify_directory(directory: Path, *, expected: str) -> dict[str, object]:
    """Compares with `expected`, or with the directory's own merge.json.

    Raises:
        Refused: DigestMismatch with both digests, SourceNotFound, ManifestNotFound.
    """
    expected = expected or _recorded(directory)
    files = list_files(directory)
    with Progress("verify", total=sum(facts.size for facts in files.values()), unit="B") as progress:
        found = digest_directory(directory, advance=progress.advance)
    if found != expected:
        raise Refused(
            "DigestMismatch", f"{directory}: expected {expected}, found {found}; its files are not the published model"
        )
    return {
        "reason": "Verified",
        "message": f"{directory} is {found}",
        "artifact": {"digest": found},
        "figures": {"files": len(files)},
    }


def _recorded(directory: Path) -> str:
    try:
        return str(json.loads((directory / "merge.json").read_text(encoding="utf-8"))["output"]["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Refused("ManifestNotFound", f"{directory}: give --digest, or a directory with a merge.json") from error
