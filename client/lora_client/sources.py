"""Where models and adapters lie, as people write it, and as the resources say it.

pvc://CLAIM/PATH   s3://BUCKET/PREFIX   hf://OWNER/NAME[@REVISION]   oci://REGISTRY/REPOSITORY[:TAG|@DIGEST]   a local directory
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lora_client.errors import Invalid

__all__ = ["ClaimPath", "LocalDirectory", "parse_claim_path", "parse_source"]

FORMS = "pvc://CLAIM/PATH, s3://BUCKET/PREFIX, hf://OWNER/NAME[@REVISION], oci://REFERENCE or a local directory"


@dataclass(frozen=True)
class ClaimPath:
    """A directory of a PersistentVolumeClaim."""

    claim: str
    path: str

    def __str__(self) -> str:
        return f"pvc://{self.claim}/{self.path}"

    @property
    def source(self) -> dict[str, Any]:
        """As `spec.*.source` says it."""
        return {"pvc": {"claimName": self.claim, "path": self.path}}


@dataclass(frozen=True)
class LocalDirectory:
    """A directory of this machine, which has to be copied to the cluster first."""

    path: Path


def parse_source(value: str | Path | Mapping[str, Any], *, where: str) -> dict[str, Any] | LocalDirectory:
    """The `source` object of a resource, or a local directory. A mapping is taken as a source object already.

    Raises:
        Invalid: neither a known scheme nor an existing directory; `where` says which argument it was.
    """
    if isinstance(value, Mapping):
        return dict(value)
    text = str(value)
    scheme, separator, rest = text.partition("://")
    if not separator:
        return _local(text, where=where)
    if scheme not in _SCHEMES or not rest:
        raise Invalid(f"{where}: found {text!r}, expected {FORMS}")
    return _SCHEMES[scheme](rest, where)


def parse_claim_path(text: str, *, where: str) -> ClaimPath:
    """`pvc://CLAIM/PATH`."""
    scheme, separator, rest = text.partition("://")
    claim, _, path = rest.partition("/")
    path = path.strip("/")
    if scheme != "pvc" or not separator or not claim or not path or ".." in path.split("/"):
        raise Invalid(
            f"{where}: found {text!r}, expected pvc://CLAIM/PATH with a path inside the claim, e.g. pvc://models/artifacts"
        )
    return ClaimPath(claim, path)


def _pvc(rest: str, where: str) -> dict[str, Any]:
    return parse_claim_path(f"pvc://{rest}", where=where).source


def _s3(rest: str, where: str) -> dict[str, Any]:
    bucket, _, prefix = rest.partition("/")
    if not bucket or not prefix.strip("/"):
        raise Invalid(f"{where}: found {'s3://' + rest!r}, expected s3://BUCKET/PREFIX")
    return {"s3": {"bucket": bucket, "prefix": prefix.strip("/")}}


def _hf(rest: str, where: str) -> dict[str, Any]:
    repo, _, revision = rest.partition("@")
    if not repo or repo.count("/") > 1:
        raise Invalid(f"{where}: found {'hf://' + rest!r}, expected hf://OWNER/NAME[@REVISION]")
    return {"huggingFace": {"repo": repo} | ({"revision": revision} if revision else {})}


def _oci(rest: str, where: str) -> dict[str, Any]:
    if "/" not in rest:
        raise Invalid(f"{where}: found {'oci://' + rest!r}, expected oci://REGISTRY/REPOSITORY with a tag or digest")
    return {"oci": {"reference": rest}}


_SCHEMES = {"pvc": _pvc, "s3": _s3, "hf": _hf, "oci": _oci}


def _local(text: str, *, where: str) -> LocalDirectory:
    path = Path(text).expanduser()
    if not path.is_dir():
        kind = "a file" if path.exists() else "nothing of that name here"
        raise Invalid(f"{where}: found {text!r} ({kind}), expected {FORMS}")
    return LocalDirectory(path.resolve())
