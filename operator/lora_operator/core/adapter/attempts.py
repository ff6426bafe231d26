"""Which attempt of a stage is due: names, memory, backoff, when a person asks again.

    status.jobs.<stage> = {name, attempt, memory, nextAttemptAt, key, template, result}

`key` ties the record to the recipe (merge) or to recipe and validation (validate): another key is another story, attempt 1.
`result` is absent while the attempt is open; afterwards Succeeded, GatesFailed, Refused, Stalled or Retry.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from lora_operator.api.adapter import Adapter, JobSpec
from lora_operator.api.conditions import timestamp
from lora_operator.api.names import GROUP, canonical_hash, job_name
from lora_operator.core.adapter.job_outcome import Outcome

__all__ = [
    "RETRY_ANNOTATION",
    "Attempt",
    "first_attempt",
    "job_settings_changed",
    "next_attempt",
    "read_attempt",
    "stage_key",
]

RETRY_ANNOTATION = f"{GROUP}/retry"
FIRST_MEMORY = 2 * 2**30
LADDER_TOP = 256 * 2**30
MAX_ATTEMPTS = 6
FIRST_BACKOFF, LONGEST_BACKOFF = 10, 600
RESULTS = {
    "succeeded": "Succeeded",
    "gates-failed": "GatesFailed",
    "refused": "Refused",
    "stalled": "Stalled",
    "retry": "Retry",
    "retry-with-more-memory": "Retry",
}


@dataclass(frozen=True)
class Attempt:
    """One attempt of a stage, as recorded in status.jobs."""

    stage: str
    name: str
    number: int
    memory: int  # bytes
    key: str
    template: str  # hash of the Job settings it ran with; an edit after a failure is a wish to try again
    result: str | None
    next_at: datetime | None  # when the following attempt may start
    reason: str = ""
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """As stored."""
        record: dict[str, Any] = {
            "name": self.name,
            "attempt": self.number,
            "memory": self.memory,
            "key": self.key,
            "template": self.template,
        }
        if self.result is not None:
            record |= {"result": self.result, "reason": self.reason, "message": self.message[:1000]}
        if self.next_at is not None:
            record["nextAttemptAt"] = timestamp(self.next_at)
        return record

    def ended(self, outcome: Outcome, *, now: datetime) -> "Attempt":
        """The record after the Job has ended; a retry says when."""
        result = RESULTS[outcome.kind]
        spent = self.number >= MAX_ATTEMPTS
        wait = min(LONGEST_BACKOFF, FIRST_BACKOFF * 2 ** (self.number - 1))
        at = now + timedelta(seconds=wait) if result == "Retry" and not spent else None
        more = outcome.kind == "retry-with-more-memory"
        memory = min(self.memory * 2, LADDER_TOP) if more else self.memory
        return replace(
            self, result=result, next_at=at, memory=memory, reason=str(outcome.reason), message=outcome.message
        )


def stage_key(adapter: Adapter, *, stage: str, artifact_digest: str = "") -> str:
    """hash8 of (uid, recipe) for merge, of (uid, artifact, validation) for validate."""
    what = adapter.recipe.raw if stage == "merge" else [artifact_digest, adapter.validation.raw]
    return canonical_hash([adapter.uid, what], digits=8)


def first_attempt(adapter: Adapter, *, stage: str, key: str, memory: int | None) -> Attempt:
    """Attempt 1; `memory` None: not known yet."""
    name = job_name(adapter.name, stage=stage, key=key, attempt=1)
    template = _template(_job_spec(adapter, stage=stage))
    return Attempt(stage, name, 1, memory or FIRST_MEMORY, key, template, None, None)


def next_attempt(adapter: Adapter, previous: Attempt) -> Attempt:
    """The one after `previous`, with the memory its end asked for."""
    number = previous.number + 1
    name = job_name(adapter.name, stage=previous.stage, key=previous.key, attempt=number)
    template = _template(_job_spec(adapter, stage=previous.stage))
    return Attempt(previous.stage, name, number, previous.memory, previous.key, template, None, None)


def read_attempt(jobs: Mapping[str, Any], *, stage: str, key: str) -> Attempt | None:
    """What status.jobs says of this stage and key; None: nothing was tried."""
    record: Mapping[str, Any] = jobs.get(stage, {})
    if not record or record.get("key") != key:
        return None
    at = record.get("nextAttemptAt")
    return Attempt(
        stage=stage,
        name=str(record["name"]),
        number=int(record["attempt"]),
        memory=int(record.get("memory", FIRST_MEMORY)),
        key=key,
        template=str(record.get("template", "")),
        result=record.get("result"),
        next_at=datetime.fromisoformat(str(at)) if at else None,
        reason=str(record.get("reason", "")),
        message=str(record.get("message", "")),
    )


def job_settings_changed(adapter: Adapter, attempt: Attempt) -> bool:
    """Whether `spec.job.<stage>` was edited since the attempt began."""
    return attempt.template != _template(_job_spec(adapter, stage=attempt.stage))


def _job_spec(adapter: Adapter, *, stage: str) -> JobSpec:
    return adapter.merge_job if stage == "merge" else adapter.validate_job


def _template(job: JobSpec) -> str:
    return canonical_hash(job.raw, digits=8)
