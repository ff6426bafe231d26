"""Everything a decision about a LoRAAdapter may use: one documented snapshot per reconcile."""

from collections.abc import Mapping
from dataclasses import dataclass

from lora_operator.api.adapter import Adapter
from lora_operator.core.adapter.effective import Defaults
from lora_operator.core.adapter.job_view import JobView
from lora_operator.core.build.job import JobSettings

__all__ = ["Claim", "Observed"]


@dataclass(frozen=True)
class Claim:
    """A PersistentVolumeClaim of the namespace."""

    name: str
    access_modes: tuple[str, ...]


@dataclass(frozen=True)
class Observed:
    """The adapter and what was seen of its surroundings."""

    adapter: Adapter
    claims: Mapping[str, Claim | None]  # None: not there
    config_maps: Mapping[str, tuple[str, ...] | None]  # keys of those that hold suites, by name; None: not there
    jobs: Mapping[str, JobView]  # our Jobs by name
    foreign: frozenset[str]  # names of Jobs that exist and are not ours
    running_merges: int  # of other adapters in the same node pool
    in_use_by: tuple[str, ...]  # LoRADeployments that name the artifact's digest
    defaults: Defaults
    settings: JobSettings
    max_concurrent_merges: int
    finalizer_held: bool
