"""How often the analysis of a rollout promotes a healthy candidate and gives up a bad one, by seeded simulation of the pure core.

Each run is a canary of one weight with one `analyse` step: every 30 s a scrape, Poisson arrivals, each request failed or slow with its
chance. `python -m bench.analysis` prints the table of docs/analysis.md and writes docs/benchmarks/analysis.json.
"""

import argparse
import json
import math
import random
from collections import Counter
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from lora_operator.api.analysis import AnalysisSpec, Of, parse_analysis
from lora_operator.api.reader import Reader
from lora_operator.core.analysis.comparison import Comparison, Reading, Sample, folded
from lora_operator.core.analysis.counters import Counters, Histogram
from lora_operator.core.analysis.verdict import Verdict, judged, mismatch_of

__all__ = ["SCENARIOS", "Result", "Scenario", "main", "simulate"]

START = datetime(2026, 1, 1, tzinfo=UTC)
METRICS = [{"name": "errors", "builtin": "errorRate"}, {"name": "latency", "builtin": "latencyP95"}]
FAST, SLOW = 0.5, 2.0  # bucket edges in seconds: stable's 95th percentile lies between them
DAYS_REQUESTS = 20_000  # what stable had counted before


@dataclass(frozen=True)
class Scenario:
    """Chances of a request to fail, and to take longer than the upper edge."""

    name: str
    errors: float = 0.01
    slow: float = 0.05
    base_errors: float = 0.01
    base_slow: float = 0.05
    weight: int = 5
    rate: float = 20.0  # requests per second, of both
    interval: int = 30
    analyse: int = 300
    timeout: int = 3600
    limit: float | None = None  # `max` of the error rate


@dataclass(frozen=True)
class Result:
    """What became of all runs."""

    name: str
    runs: int
    promoted: int
    rolled_back: int
    undecided: int
    paused: int
    median_seconds: float  # until the decision

    @property
    def line(self) -> str:
        """A row of the table."""
        shares = (self.promoted, self.rolled_back, self.undecided, self.paused)
        cells = [f"{100 * share / self.runs:.2f} %" for share in shares]
        return f"| {self.name} | {self.runs} | {' | '.join(cells)} | {self.median_seconds:.0f} s |"


SCENARIOS = (
    Scenario("healthy, weight 5"),
    Scenario("healthy, weight 25", weight=25),
    Scenario("healthy, weight 50", weight=50),
    Scenario("healthy, weight 5, max 2 % errors", limit=0.02),
    Scenario("healthy, no errors at all, weight 5", errors=0.0, base_errors=0.0),
    Scenario("healthy, 2 requests/s, weight 25", rate=2.0, weight=25),
    Scenario("5 % errors, weight 5", errors=0.05),
    Scenario("5 % errors, weight 25", errors=0.05, weight=25),
    Scenario("3 % errors, weight 25", errors=0.03, weight=25),
    Scenario("3 times slower, weight 5", slow=0.9),
    Scenario("half of the requests slow, weight 25", slow=0.5, weight=25),
)


def simulate(scenario: Scenario, *, runs: int, seed: int) -> Result:
    """Plays the scenario that often."""
    source = random.Random(f"{seed} {scenario.name}")
    outcomes: Counter[str] = Counter()
    seconds: list[int] = []
    for _ in range(runs):
        outcome, after = _run(scenario, source)
        outcomes[outcome] += 1
        seconds.append(after)
    return Result(
        name=scenario.name,
        runs=runs,
        promoted=outcomes["promoted"],
        rolled_back=outcomes["rolled back"],
        undecided=outcomes["undecided"],
        paused=outcomes["paused"],
        median_seconds=sorted(seconds)[len(seconds) // 2],
    )


def _spec(scenario: Scenario) -> AnalysisSpec:
    metrics = [dict(metric) for metric in METRICS]
    if scenario.limit is not None:
        metrics[0]["max"] = scenario.limit  # type: ignore[assignment]
    return parse_analysis(Reader({"metrics": metrics}, path="spec.analysis"))


def _run(scenario: Scenario, source: random.Random) -> tuple[str, int]:
    spec, share = _spec(scenario), scenario.weight / 100
    known = Comparison(stable="old", candidate="new", rollout="1")
    stable = _more(Counters(), DAYS_REQUESTS, scenario.base_errors, scenario.base_slow, source)
    candidate = _more(Counters(), 0, 0, 0, source)
    for elapsed in range(0, scenario.timeout + 1, scenario.interval):
        if elapsed:
            arrived = _poisson(scenario.rate * scenario.interval, source)
            got = sum(source.random() < share for _ in range(arrived))
            candidate = _more(candidate, got, scenario.errors, scenario.slow, source)
            stable = _more(stable, arrived - got, scenario.base_errors, scenario.base_slow, source)
        readings = {"s": Reading("old", stable), "c": Reading("new", candidate)}
        sample = Sample(at=START + timedelta(seconds=elapsed), rollout="1", stage="1", readings=readings)
        known = folded(known, sample, spec=spec, share=share)
        outcome = judged(known, spec=spec, fresh=True)
        if outcome.verdict is Verdict.DEGRADED:
            return "rolled back", elapsed
        if mismatch_of(known, share=share):
            return "paused", elapsed
        if elapsed >= scenario.analyse and outcome.verdict is Verdict.PASS:
            return "promoted", elapsed
    return "undecided", scenario.timeout


def _more(known: Counters, requests: int, errors: float, slow: float, source: random.Random) -> Counters:
    failed = sum(source.random() < errors for _ in range(requests)) if errors else 0
    late = sum(source.random() < slow for _ in range(requests)) if slow else 0
    times = known.time(Of.DURATION).buckets
    before = (times.get(FAST, 0.0), times.get(SLOW, 0.0), times.get(math.inf, 0.0))
    quick = (requests - late) // 2
    now = (before[0] + quick, before[1] + requests - late, before[2] + requests)
    return Counters(
        requests=known.requests + requests,
        errors=known.errors + failed,
        times={Of.DURATION: Histogram(dict(zip((FAST, SLOW, math.inf), now, strict=True)))},
    )


def _poisson(mean: float, source: random.Random) -> int:
    """Exponential gaps, counted."""
    count, passed = 0, source.expovariate(mean)
    while passed < 1:
        count += 1
        passed += source.expovariate(mean)
    return count


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/benchmarks/analysis.json"))
    options = parser.parse_args()
    print("| scenario | runs | promoted | rolled back | undecided after 3600 s | paused | median |")
    print("|---|---|---|---|---|---|---|")
    results = []
    for scenario in SCENARIOS:
        results.append(simulate(scenario, runs=options.runs, seed=options.seed))
        print(results[-1].line, flush=True)
    content = {"runs": options.runs, "seed": options.seed, "results": [asdict(result) for result in results]}
    options.output.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
