"""`loractl status NAME`: what was asked for, what serves, what is on its way, and what comes next. Pure: lines at a width."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from loractl.ages import age, duration
from loractl.columns import one_line
from loractl.objects import created_at, message_of, name_of, reason_of, seen_by_operator, status_of

__all__ = ["adapter_page", "chain_lines", "deployment_page", "report_page", "step_words"]

Raw = Mapping[str, Any]
INDENT = 16
UNCUT = 10_000
SHORT_DIGEST = 19
PAUSE_ENDS = {"SpecPaused": "spec.paused: false", "PauseRequested": "`loractl resume NAME`"}
"""What ends a pause of which reason; a promotion ends all others."""


def adapter_page(raw: Raw, *, now: datetime, width: int | None) -> list[str]:
    """A LoRAAdapter on a few lines."""
    status = status_of(raw)
    lines = [*_field("LoRAAdapter", f"{name_of(raw)}   {_state(raw)}   {age(created_at(raw), now=now)} old", width)]
    artifact, merge, validation = (status.get(key) or {} for key in ("artifact", "merge", "validation"))
    if artifact.get("digest"):
        # Whole digests do not fit a terminal; piped output and -o wide have them.
        lines += _field("artifact", artifact["digest"] if width is None else artifact["digest"][:SHORT_DIGEST], width)
        lines += _field("lies at", str(artifact.get("uri", "")), width)
    if merge:
        lines += _field("merged", _merged(merge), width)
    if validation:
        lines += _field("score", _score(validation), width)
        lines += _field(
            "gates", ", ".join(f"{g.get('name')} {g.get('status')}" for g in validation.get("gates") or ()), width
        )
    lines += _field("job", _jobs(status.get("jobs") or {}, now=now), width)
    return lines + _field("says", one_line(message_of(raw)), width)


def deployment_page(raw: Raw, *, now: datetime, width: int | None) -> list[str]:
    """A LoRADeployment on a few lines."""
    status, spec = status_of(raw), raw.get("spec", {})
    strategy = (spec.get("strategy") or {}).get("type", "Replace")
    lines = [
        *_field(
            "LoRADeployment",
            f"{name_of(raw)}   {_state(raw)}   {strategy}   {age(created_at(raw), now=now)} old",
            width,
        )
    ]
    for part in ("stable", "candidate", "previous"):
        lines += _field(part, _version(status.get(part) or {}, replicas=spec.get("replicas", 1)), width)
    lines += _field("step", step_words(status.get("step") or {}, now=now), width)
    lines += _field("paused", _pause(status.get("pause") or {}, now=now, name=name_of(raw)), width)
    lines += _field("analysis", _analysis(status.get("analysis") or {}), width)
    abort = status.get("abort") or {}
    if abort:
        lines += _field(
            "given up",
            f"{abort.get('revision', '')}: {abort.get('reason', '')}: {one_line(abort.get('message', ''))}",
            width,
        )
    if status.get("heldRevision"):
        lines += _field(
            "held", f"{status['heldRevision']} (after a rollback; `loractl retry {name_of(raw)}` lets it start)", width
        )
    for url in status.get("endpoints") or ():
        lines += _field("answers at", str(url), width)
    for entry in list(status.get("history") or ())[:3]:
        lines += _field("before", _history(entry, now=now), width)
    return lines + _field("says", one_line(message_of(raw)), width)


def report_page(raw: Raw, *, width: int | None) -> list[str]:
    """The validation of a LoRAAdapter, as status carries it."""
    validation: Raw = status_of(raw).get("validation") or {}
    lines = _field("LoRAAdapter", f"{name_of(raw)}   {_state(raw)}", width)
    lines += _field("validation", f"{validation.get('id', '')}, mode {validation.get('mode', '')}", width)
    lines += _field("score", _score(validation), width)
    for name, dimension in (validation.get("dimensions") or {}).items():
        lines += _field(str(name), _dimension(dimension), width)
    for row in _gate_rows(validation.get("gates") or ()):
        lines += _field("gate", row, width)
    for code in validation.get("recommendations") or ():
        lines += _field("recommends", str(code), width)
    for probe in validation.get("probes") or ():
        lines += _field(
            "probe", f"{one_line(str(probe.get('prompt')))!r} is answered {str(probe.get('answer'))!r}", width
        )
    if validation.get("truncated"):
        lines += _field("", "lists were cut to fit status; the full report has them whole", width)
    return lines + _field("full report", str(validation.get("reportUri", "")), width)


def _gate_rows(gates: Sequence[Raw]) -> list[str]:
    """Name, verdict, and the numbers where there are any."""
    return [f"{gate.get('name', ''):<11}{gate.get('status', ''):<14}{_numbers(gate)}".rstrip() for gate in gates]


def _numbers(gate: Raw) -> str:
    said = [f"{word} {_number(gate[word])}" for word in ("observed", "threshold") if gate.get(word) is not None]
    return ", ".join([*said, str(gate.get("kind", ""))]).strip(", ")


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def _state(raw: Raw) -> str:
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


def _score(validation: Raw) -> str:
    score = validation.get("overallScore")
    return "" if score is None else f"{float(score):.3f} ({validation.get('grade', '')})"


def _dimension(dimension: Raw) -> str:
    parts = [_number(dimension.get("score"))]
    if dimension.get("ci95"):
        low, high = dimension["ci95"][:2]
        parts.append(f"95 % between {_number(low)} and {_number(high)}")
    if dimension.get("n") is not None:
        parts.append(f"{dimension['n']} items")
    return ", ".join(parts)


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
    place = f"{int(step['index']) + 1} of {step.get('of')}, " if step.get("index") is not None else ""
    text = f"{place}{step.get('sub', '')}"
    if step.get("message"):
        text += f": {one_line(str(step['message']))}"
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


def _analysis(analysis: Raw) -> str:
    if not analysis:
        return ""
    metrics = [f"{one.get('name', '')} {one.get('verdict', '')}".strip() for one in analysis.get("metrics") or ()]
    return ": ".join([str(analysis.get("verdict", "")), ", ".join(metrics)]).strip(": ")


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


def _field(title: str, text: str, width: int | None) -> list[str]:
    """`title  text`, wrapped under itself; nothing when there is nothing to say."""
    if not text:
        return []
    head = f"{title:<{INDENT}}" if len(title) < INDENT else f"{title} "
    return textwrap.wrap(
        text,
        width or UNCUT,
        initial_indent=head,
        subsequent_indent=" " * INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def chain_lines(links: Sequence[tuple[str, str]], *, width: int | None) -> Iterator[str]:
    """Links of a chain, each below the one that it explains."""
    for depth, (subject, sentence) in enumerate(links):
        arrow = "" if depth == 0 else "└─ "
        indent = "   " * max(0, depth - 1)
        yield from textwrap.wrap(
            f"{subject} {sentence}",
            width or UNCUT,
            initial_indent=indent + arrow,
            subsequent_indent=indent + " " * len(arrow) + ("  " if depth == 0 else ""),
            break_long_words=False,
            break_on_hyphens=False,
        )
