"""A comparison as JSON and back: what the ConfigMap `<name>-analysis` keeps between two scrapes.

Text that cannot be read (edited by hand, or of another version) begins the comparison anew: figures that may be wrong are no figures.
"""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lora_operator.api.analysis import Of
from lora_operator.core.analysis.comparison import Comparison, MetricSums, Pair, Reading
from lora_operator.core.analysis.counters import Counters, Histogram
from lora_operator.core.analysis.sequential import NO_EVIDENCE, Moments

__all__ = ["comparison_from", "comparison_text"]

SCHEMA = 1


def comparison_text(known: Comparison) -> str:
    """As it is stored."""
    content = {
        "schema": SCHEMA,
        "stable": known.stable,
        "candidate": known.candidate,
        "rollout": known.rollout,
        "source": known.source,
        "since": _stamp(known.since),
        "at": _stamp(known.at),
        "measuredAt": _stamp(known.measured_at),
        "seconds": known.seconds,
        "stage": known.stage,
        "history": _counters_json(known.history),
        "whole": _pair_json(known.whole),
        "inStage": _pair_json(known.in_stage),
        "metrics": {name: _sums_json(sums) for name, sums in sorted(known.metrics.items())},
        "pods": {
            pod: {"revision": r.revision, "created": _stamp(r.created), "counters": _counters_json(r.counters)}
            for pod, r in sorted(known.readings.items())
        },
        "problems": list(known.problems),
    }
    return json.dumps(content, separators=(",", ":"))


def comparison_from(text: str, *, rollout: str) -> Comparison | None:
    """What is stored of the comparison of that rollout; None when it is another's, or not readable."""
    try:
        raw = json.loads(text)
        if raw["schema"] != SCHEMA or raw["rollout"] != rollout:
            return None
        return _comparison(raw)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def _comparison(raw: Mapping[str, Any]) -> Comparison:
    return Comparison(
        stable=raw["stable"],
        candidate=raw["candidate"],
        rollout=raw["rollout"],
        source=raw.get("source", "pods"),
        since=_moment(raw["since"]),
        at=_moment(raw["at"]),
        measured_at=_moment(raw["measuredAt"]),
        seconds=float(raw["seconds"]),
        stage=raw["stage"],
        history=_counters(raw["history"]),
        whole=_pair(raw["whole"]),
        in_stage=_pair(raw["inStage"]),
        metrics={name: _sums(item) for name, item in raw["metrics"].items()},
        readings={
            pod: Reading(
                revision=item["revision"], created=_moment(item["created"]), counters=_counters(item["counters"])
            )
            for pod, item in raw["pods"].items()
        },
        problems=tuple(raw["problems"]),
    )


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _pair_json(pair: Pair) -> dict[str, Any]:
    return {"stable": _counters_json(pair.stable), "candidate": _counters_json(pair.candidate)}


def _pair(raw: Mapping[str, Any]) -> Pair:
    return Pair(stable=_counters(raw["stable"]), candidate=_counters(raw["candidate"]))


def _counters_json(counters: Counters) -> dict[str, Any]:
    return {
        "requests": float(counters.requests),
        "errors": float(counters.errors),
        "inFlight": float(counters.in_flight),
        "times": {
            str(of): {
                "inf" if edge == math.inf else repr(float(edge)): float(count)
                for edge, count in histogram.buckets.items()
            }
            for of, histogram in counters.times.items()
        },
    }


def _counters(raw: Mapping[str, Any]) -> Counters:
    return Counters(
        requests=float(raw["requests"]),
        errors=float(raw["errors"]),
        in_flight=float(raw["inFlight"]),
        times={
            Of(of): Histogram({float(edge): float(count) for edge, count in buckets.items()})
            for of, buckets in raw["times"].items()
        },
    )


def _sums_json(sums: MetricSums) -> dict[str, Any]:
    moments = {name: getattr(sums, name) for name in ("stable", "candidate", "worse", "gain")}
    return {
        "edge": sums.edge,
        "evidence": [] if sums.evidence == NO_EVIDENCE else [float(f"{value:.8g}") for value in sums.evidence],
        "moments": {name: [m.count, m.mean, m.squares] for name, m in moments.items() if m.count},
    }


def _sums(raw: Mapping[str, Any]) -> MetricSums:
    moments = {name: Moments(int(item[0]), float(item[1]), float(item[2])) for name, item in raw["moments"].items()}
    evidence = tuple(float(value) for value in raw["evidence"]) or NO_EVIDENCE
    if len(evidence) != len(NO_EVIDENCE):
        raise ValueError("evidence of another grid")
    return MetricSums(edge=None if raw["edge"] is None else float(raw["edge"]), evidence=evidence, **moments)
