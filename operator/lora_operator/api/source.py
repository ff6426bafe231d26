"""Where a model or an adapter comes from: exactly one of pvc, s3, huggingFace, oci."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lora_operator.api.errors import Invalid
from lora_operator.api.reader import Reader

__all__ = ["ClaimPath", "Source", "parse_claim_path", "parse_source"]

SCHEMES = ("pvc", "s3", "huggingFace", "oci")


@dataclass(frozen=True)
class ClaimPath:
    """A directory or file inside a PersistentVolumeClaim of the same namespace."""

    claim: str
    path: str


@dataclass(frozen=True)
class Source:
    """`scheme` is the member that was given, `raw` the source object exactly as written (it is handed to `lora-job fetch`)."""

    scheme: str
    claim: ClaimPath | None  # None for remote schemes
    digest: str | None  # None: not pinned by the user
    raw: Mapping[str, Any]


def parse_source(holder: Reader) -> Source:
    """Reads `source` and `digest` of a base or adapter entry."""
    source = holder.required("source")
    scheme = source.one_of(*SCHEMES)
    claim = parse_claim_path(source.required("pvc")) if scheme == "pvc" else None
    digest = holder.text("digest") if "digest" in holder else None
    return Source(scheme=scheme, claim=claim, digest=digest, raw=source.raw)


def parse_claim_path(reader: Reader) -> ClaimPath:
    """`{claimName, path}`; the path is relative and never climbs out."""
    path = reader.text("path", "")
    if path.startswith("/") or ".." in path.split("/"):
        raise Invalid(field=reader.at("path"), found=path, expected="a relative path without '..'")
    return ClaimPath(claim=reader.text("claimName"), path=path)
