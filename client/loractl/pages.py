"""`loractl status NAME`: what was asked for, what serves, what is on its way, and what comes next. Pure: lines at a width."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from loractl.ages import age, duration
from loractl.columns import one_line
from loractl.comparison import comparison_lines
from loractl.layout import wrap
from loractl.objects import created_at, message_of, name_of, reason_of, seen_by_operator, status_of

__all__ = ["adapter_page", "chain_lines", "deployment_page", "field_lines", "score_words", "state_words", "step_words"]

Raw = Mapping[str, Any]
INDENT = 16
SHORT_DIGEST = 19
PAUSE_ENDS = {"SpecPaused": "spec.paused: false", "PauseRequested": "`loractl resume NAME`"}
"""What ends a pause of which reason; a promotion ends all others."""


def adapter_page(raw: Raw, *, now: datetime, width: int | None) -> list[str]:
    """A LoRAAdapter on a few lines."""
    status = status_of(raw)
    lines = [
        *field_lines("LoRAAdapter", f"{name_of(raw)}   {state_words(raw)}   {age(created_at(raw), now=now)} old", width)
    ]
    artifact, merge, validation = (status.get(key) or {} for key in ("artifact", "merge", "validation"))
    if artifact.get("digest"):
        # Whole digests do not fit a terminal; piped output and -o wide have them.
        lines += field_lines(
            "artifact", artifact["digest"] if width is None else artifact["digest"][:SHORT_DIGEST], width
        )
        lines += field_lines("lies at", str(artifact.get("uri", "")), width)
    if merge:
        lines += field_lines("merged", _merged(merge), width)
    if validation:
        lines += field_lines("score", score_words(validation), width)
        lines += field_lines(
            "gates", ", ".join(f"{g.get('name')} {g.get('status')}" for g in validation.get("gates") or ()), width
        )
    lines += field_lines("job", _jobs(status.get("jobs") or {}, now=now), width)
    return lines + field_lines("says", one_line(message_of(raw)), width)


def deployment_page(raw: Raw, *, now: datetime, width: int | None) -> list[str]:
    """A LoRADeployment on a few lines."""
    status, spec = status_of(raw), raw.get("spec", {})
    strategy = (spec.get("strategy") or {}).get("type", "Replace")
    lines = [
        *field_lines(
            "LoRADeployment",
            f"{name_of(raw)}   {state_words(raw)}   {strategy}   {age(created_at(raw), now=now)} old",
            width,
        )
    ]
    for part in ("stable", "candidate", "previous"):
        lines += field_lines(part, _version(status.get(part) or {}, replicas=spec.get("replicas", 1)), width)
    lines += field_lines("step", step_words(status.get("step") or {}, now=now), width)
    lines += field_lines("paused", _pause(status.get("pause") or {}, now=now, name=name_of(raw)), width)
    for index, line in enumerate(comparison_lines(status.get("analysis") or {})):
        lines += field_lines("analysis" if index == 0 else "", line, width)
    abort = status.get("abort") or {}
    if abort:
        lines += field_lines(
            "given up",
            f"{abort.get('revision', '')}: {abort.get('reason', '')}: {one_line(abort.get('message', ''))}",
            width,
        )
    if status.get("heldRevision"):
        lines += field_lines(
            "held", f"{status['heldRevision']} (after a rollback; `loractl retry {name_of(raw)}` lets it start)", width
        )
    for url in status.get("endpoints") or ():
        lines += field_lines("answers at", str(url), width)
    for entry in list(status.get("history") or ())[:3]:
        lines += field_lines("before", _history(entry, now=now), width)
    return lines + field_lines("says", one_line(message_of(raw)), width)


def state_words(raw: Raw) -> str:
    """Phase, and the reason where it says more."""
    status = status_of(raw)
    if not seen_by_operator(raw):
        return "not yet seen by the operator"
    phase, reason = str(status.get("phase", "")), reason_of(raw)
    return phase if reason in {"", phase} else f"{phase} ({reason})"


def _merged(merge: Raw) -> str:
    parts = [
        f"{merge.get('tensorsMerged', 0)} tensors in {merge.get('seconds', 0)} s, {merge.get('tensorsCopied', 0)} copied"
    ]
    if merge.get("deltaRetentionMin") is not None:
        parts.append(f"at least {merge['deltaRetentionMin']:.3f} of every change kept")
    return ", ".join(parts)


def score_words(validation: Raw) -> str:
    """Score and grade; empty where nothing was scored."""
    score = validation.get("overallScore")
    return "" if score is None else f"{float(score):.3f} ({validation.get('grade', '')})"


def _jobs(jobs: Raw, *, now: datetime) -> str:
    running = [record for record in jobs.values() if not record.get("result") or record.get("nextAttemptAt")]
    if not running:
        return ""
    record = running[-1]
    again = f", next attempt {_until(record['nextAttemptAt'], now=now)}" if record.get("nextAttemptAt") else ""
    return f"{record.get('name', '')}, attempt {record.get('attempt', 1)}{again}"


def _version(version: Raw, *, replicas: int) -> str:
    if not version:
        return ""
    parts = [
        str(version.get("revision", "")),
        f"adapter {version.get('adapter', '')}",
        f"{version.get('weight', 0)} % of requests",
    ]
    wanted = version.get("targetWeight")
    if wanted is not None and wanted != version.get("weight"):
        parts[-1] += f" (going to {wanted} %)"
    return ", ".join([*parts, f"{version.get('readyReplicas', 0)} of {replicas} pods ready"])


def step_words(step: Raw, *, now: datetime) -> str:
    """Where a rollout stands between its steps; empty when it stands at none."""
    if not step:
        return ""
    number, last = int(step.get("index") or 0) + 1, int(step.get("of") or 0)
    place = f"{number} of {last}" if step.get("index") is not None and number <= last else ""
    text = ", ".join(part for part in (place, str(step.get("sub", ""))) if part)
    said = one_line(str(step.get("message", ""))).removeprefix(f"step {place}: ")
    if said:
        text += f": {said}"
    if step.get("startedAt"):
        text += f", {age(step['startedAt'], now=now)} since the start"
    return text + (f", deadline {_until(step['deadline'], now=now)}" if step.get("deadline") else "")


def _pause(pause: Raw, *, now: datetime, name: str) -> str:
    if not pause:
        return ""
    until = f", until {_until(pause['until'], now=now)}" if pause.get("until") else ""
    reason = str(pause.get("reason", ""))
    way = PAUSE_ENDS.get(reason, "`loractl promote NAME`").replace("NAME", name)
    return f"{reason} for {age(pause.get('since', ''), now=now)}{until}; go on with {way}"


def _history(entry: Raw, *, now: datetime) -> str:
    revision = str(entry.get("deploymentId", "")).rsplit("/", 1)[-1]
    took = duration(float(entry.get("durationSeconds") or 0))
    return (
        f"{revision}, adapter {entry.get('adapter', '')}, {entry.get('result', '')} ({entry.get('reason', '')}) "
        f"after {took}, {age(str(entry.get('completionTime', '')), now=now)} ago"
    )


def _until(moment: str, *, now: datetime) -> str:
    left = (datetime.fromisoformat(moment) - now).total_seconds()
    return f"in {duration(left)}" if left > 0 else f"{duration(-left)} ago"


def field_lines(title: str, text: str, width: int | None) -> list[str]:
    """`title  text`, wrapped under itself; nothing when there is nothing to say."""
    if not text:
        return []
    head = f"{title:<{INDENT}}" if len(title) < INDENT else f"{title} "
    return wrap(text, width=width, first=head, rest=" " * INDENT)


def chain_lines(links: Sequence[tuple[str, str]], *, width: int | None) -> Iterator[str]:
    """Links of a chain, each below the one that it explains."""
    for depth, (subject, sentence) in enumerate(links):
        arrow = "" if depth == 0 else "└─ "
        indent = "   " * max(0, depth - 1)
        rest = indent + " " * len(arrow) + ("  " if depth == 0 else "")
        yield from wrap(f"{subject} {sentence}", width=width, first=indent + arrow, rest=rest)
