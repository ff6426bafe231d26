"""One `--source` of `lora-job fetch`, parsed once: a name, a role, and exactly one place."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import Any

from lora_job.digest import parse_digest
from lora_job.outcome import Refused
from lora_job.reasons import Reason
from lora_job.strict_json import parse_object

__all__ = ["Role", "Source", "parse_source"]

SCHEMES = ("pvc", "s3", "huggingFace", "oci")
_OWN_MEMBERS = frozenset({"name", "role", "digest"})


class Role(StrEnum):
    """What a source is for."""

    BASE = "base"
    ADAPTER = "adapter"


@dataclass(frozen=True, kw_only=True)
class Source:
    """A directory on a claim."""

    name: str
    role: Role | None
    """None: told from what the directory holds."""
    claim: str
    path: str
    digest: str
    """Expected digest, "" for none."""

    def directory(self, claims: Path) -> Path:
        """Where it is mounted."""
        return claims / self.claim / self.path


def _invalid(text: str) -> Refused:
    return Refused(Reason.INVALID_SOURCE, f"--source: {text}")


def _text(raw: Mapping[str, Any], field: str) -> str:
    value = raw.get(field, "")
    if not isinstance(value, str):
        raise _invalid(f"field {field!r}: expected a string, found {type(value).__name__}")
    return value


def _scheme(raw: Mapping[str, Any]) -> str:
    unknown = sorted(set(raw) - _OWN_MEMBERS - set(SCHEMES))
    if unknown:
        raise _invalid(
            f"field {unknown[0]!r} is not known; expected name, role, digest and one of {', '.join(SCHEMES)}"
        )
    named = [scheme for scheme in SCHEMES if scheme in raw]
    if len(named) != 1:
        raise _invalid(f"expected exactly one of {', '.join(SCHEMES)}, found {', '.join(named) or 'none'}")
    if named[0] != "pvc":
        raise Refused(
            Reason.NOT_SUPPORTED_YET,
            f"--source: {named[0]} is not supported yet; copy the files to a claim and name them with pvc",
        )
    return named[0]


def parse_source(text: str) -> Source:
    """From the JSON of one `--source`."""
    raw = parse_object(text.encode(), where="--source", reason=Reason.INVALID_SOURCE)
    place = raw[_scheme(raw)]
    if not isinstance(place, dict) or set(place) - {"claimName", "path"}:
        raise _invalid("field 'pvc': expected an object with claimName and path")
    claim, path = _text(place, "claimName"), _text(place, "path")
    if not claim or "/" in claim or claim in {".", ".."}:
        raise _invalid(f"field 'pvc.claimName': expected the name of a claim, found {claim!r}")
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise _invalid(f"field 'pvc.path': expected a path below the claim's root, found {path!r}")
    role = _text(raw, "role")
    if role and role not in list(Role):
        raise _invalid(f"field 'role': expected base or adapter, found {role!r}")
    digest = _text(raw, "digest")
    return Source(
        name=_text(raw, "name") or PurePosixPath(path).name or claim,
        role=Role(role) if role else None,
        claim=claim,
        path=path,
        digest=parse_digest(digest, where="--source: field 'digest'") if digest else "",
    )
