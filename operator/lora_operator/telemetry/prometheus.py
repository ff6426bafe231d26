"""A Prometheus server, asked through its HTTP API: the pods' raw counters in one query, and any PromQL of the user.

The raw counters are folded exactly like those that are read from the pods, so restarts and pods that come and go are treated alike.
Series need the labels `namespace` and `pod`, which every common scrape configuration adds.
"""

import asyncio
import math
import re
from collections.abc import Mapping
from typing import Any

import aiohttp

from lora_operator.api.analysis import Variant
from lora_operator.core.analysis.comparison import Reading
from lora_operator.core.analysis.series import Series
from lora_operator.core.analysis.vllm import NAMES, counters_of
from lora_operator.core.plan import Collect, Query
from lora_operator.telemetry.base import Figures

__all__ = ["PrometheusSource"]

SECONDS = 10.0


class PrometheusSource:
    """Implements telemetry.base.Source."""

    def __init__(self, *, seconds: float = SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def read(self, asked: Collect) -> Figures:
        """Counters and values; what was not answered is a problem."""
        async with aiohttp.ClientSession(timeout=self._timeout, trust_env=False) as session:
            counting = asyncio.create_task(_counters(session, asked))
            answers = await asyncio.gather(*(_value(session, asked.prometheus, query) for query in asked.queries))
            counted = await counting
        values: dict[str, dict[Variant, float]] = {}
        problems = list(counted.problems)
        for query, answer in zip(asked.queries, answers, strict=True):
            if isinstance(answer, str):
                problems.append(f"{query.metric} of {query.variant}: {answer}")
            else:
                values.setdefault(query.metric, {})[query.variant] = answer
        return Figures(readings=counted.readings, values=values, problems=tuple(problems))


class _Unanswered(Exception):
    """Why there is no answer."""


async def _counters(session: aiohttp.ClientSession, asked: Collect) -> Figures:
    if not asked.targets:
        return Figures(problems=("no pod of either version is ready",))
    pods = "|".join(re.escape(target.pod) for target in asked.targets)
    names = "|".join(NAMES)
    promql = f'{{__name__=~"{names}",namespace="{asked.namespace}",pod=~"{_quoted(pods)}"}}'
    try:
        result = await _ask(session, asked.prometheus, promql)
        by_pod = _by_pod(result)
    except _Unanswered as error:
        return Figures(problems=(str(error),))
    readings: dict[str, Reading] = {}
    problems: list[str] = []
    for target in asked.targets:
        counters = counters_of(by_pod.get(target.pod, ()), handlers=target.handlers)
        if counters is None:
            problems.append(f"{asked.prometheus} has no request metrics of pod {target.pod}, or not as numbers")
        else:
            readings[target.pod] = Reading(revision=target.revision, counters=counters, created=target.created)
    return Figures(readings=readings, problems=tuple(problems))


async def _value(session: aiohttp.ClientSession, address: str, query: Query) -> float | str:
    """A finite number, or why there is none."""
    try:
        result = await _ask(session, address, query.promql)
        if isinstance(result, list) and len(result) == 2 and not isinstance(result[1], Mapping):
            found = float(result[1])  # a scalar: [time, "value"]
        elif len(result) == 1:
            found = float(result[0]["value"][1])
        else:
            return f"the query answers {len(result) or 'nothing'}{' series' if result else ''}, expected one"
    except _Unanswered as error:
        return str(error)
    except (KeyError, IndexError, TypeError, ValueError):
        return f"{address} answers no number"
    return found if math.isfinite(found) else f"the query answers {found}"


async def _ask(session: aiohttp.ClientSession, address: str, promql: str) -> Any:
    """`data.result` of an instant query."""
    url = f"{address}/api/v1/query"
    try:
        async with session.post(url, data={"query": promql}) as reply:
            content = await reply.json(content_type=None)
            status = reply.status
    except TimeoutError:
        raise _Unanswered(f"{address} does not answer in time") from None
    except (aiohttp.ClientError, OSError) as error:
        raise _Unanswered(f"{address}: {type(error).__name__}: {error}"[:200]) from None
    except ValueError:
        raise _Unanswered(f"{address} does not answer as Prometheus does (no JSON)") from None
    if not isinstance(content, Mapping) or content.get("status") != "success":
        said = content.get("error", "") if isinstance(content, Mapping) else ""
        raise _Unanswered(f"{address} refuses the query: HTTP {status} {said}"[:300].rstrip())
    return (content.get("data") or {}).get("result") or []


def _by_pod(result: Any) -> dict[str, list[Series]]:
    found: dict[str, list[Series]] = {}
    try:
        for item in result:
            labels = dict(item["metric"])
            line = Series(name=labels.pop("__name__"), labels=labels, value=float(item["value"][1]))
            found.setdefault(labels.get("pod", ""), []).append(line)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        raise _Unanswered("the answer has no series of counters") from None
    return found


def _quoted(text: str) -> str:
    """Inside a PromQL string."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
