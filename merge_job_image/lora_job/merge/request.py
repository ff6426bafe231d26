"""What a merge is asked for. Imports no torch: the command line makes one before it loads the engine."""

from dataclasses import dataclass
from pathlib import Path

from lora_job.merge.recipe import Recipe

__all__ = ["MergeRequest"]


@dataclass(frozen=True, kw_only=True)
class MergeRequest:
    """What is merged and where it goes: exactly one of `output` and `output_root`."""

    base: Path
    adapters: tuple[Path, ...]
    recipe: Recipe
    allow_unverified_base: bool = False
    output: Path | None = None
    output_root: Path | None = None
    workers: int = 2
    fetch_report: Path | None = None
    device: str = "auto"
    """auto, cpu or cuda: where products are calculated."""

    @property
    def roots(self) -> tuple[Path, ...]:
        """Base first, then the adapters."""
        return (self.base, *self.adapters)
