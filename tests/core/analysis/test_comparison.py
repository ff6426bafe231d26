"""The running sums of a rollout, scrape by scrape, and what they say."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lora_operator.api.analysis import AnalysisSpec, Of, Variant, parse_analysis
from lora_operator.api.reader import Reader
from lora_operator.core.analysis.comparison import Comparison, Reading, Sample, folded
from lora_operator.core.analysis.counters import Counters, Histogram
from lora_operator.core.analysis.stored import comparison_from, comparison_text
from lora_operator.core.analysis.success import success_of
from lora_operator.core.analysis.verdict import Verdict, judged, mismatch_of, stays_fresh

Json = dict[str, Any]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
ERRORS: Json = {"name": "errors", "builtin": "errorRate"}
LATENCY: Json = {"name": "latency", "builtin": "latencyP95"}
SPEED: Json = {"name": "speed", "builtin": "throughput"}
SALES: Json = {"name": "sales", "query": "sales{{variant}}", "direction": "HigherIsBetter"}
HEAT: Json = {"name": "heat", "query": "heat", "max": 80}
PROMETHEUS: Json = {"source": {"prometheus": {"address": "http://prometheus:9090/"}}}


def spec(*metrics: Json, **more: Any) -> AnalysisSpec:
    return parse_analysis(Reader({"metrics": list(metrics), **more}, path="spec.analysis"))


def counters(requests: int, *, errors: int = 0, slow: int = 0, in_flight: int = 0) -> Counters:
    """`slow`: longer than 2 s; the others than 0.5 s at most."""
    times = {Of.DURATION: Histogram({0.5: requests - slow, 2.0: requests - slow, 4.0: requests, math.inf: requests})}
    return Counters(requests=requests, errors=errors, in_flight=in_flight, times=times)


class World:
    """Scrapes every 10 s."""

    def __init__(self, rules: AnalysisSpec, *, share: float | None = 0.5) -> None:
        self.spec, self.share = rules, share
        self.known = Comparison(stable="old", candidate="new", rollout="1")
        self.at = START

    def scrape(
        self,
        readings: Mapping[str, Reading],
        *,
        stage: str = "1",
        values: Mapping[str, Mapping[Variant, float]] | None = None,
        problems: tuple[str, ...] = (),
    ) -> "World":
        sample = Sample(at=self.at, rollout="1", stage=stage, readings=readings, values=values or {}, problems=problems)
        self.known = folded(self.known, sample, spec=self.spec, share=self.share)
        self.at += timedelta(seconds=10)
        return self

    def pods(self, stable: Counters, candidate: Counters, **more: Any) -> "World":
        return self.scrape({"s": Reading("old", stable), "c": Reading("new", candidate)}, **more)

    def say(self, *, fresh: bool = True) -> tuple[Verdict, str]:
        outcome = judged(self.known, spec=self.spec, fresh=fresh)
        return outcome.verdict, outcome.message

    def figures(self, name: str) -> Json:
        return next(dict(m) for m in judged(self.known, spec=self.spec, fresh=True).metrics if m["name"] == name)


def test_the_first_scrape_is_the_beginning_and_counts_nothing() -> None:
    world = World(spec(ERRORS)).pods(counters(9_000, errors=90), counters(3))
    assert (world.known.whole.stable.requests, world.known.history.requests) == (0, 9_000)
    world.pods(counters(9_100, errors=91), counters(103))
    assert (world.known.whole.stable.requests, world.known.whole.candidate.requests) == (100, 100)


def test_pods_that_come_restart_and_go_make_no_request_up() -> None:
    world = World(spec(ERRORS)).scrape({"s1": Reading("old", counters(500)), "s2": Reading("old", counters(700))})
    young, unknown = START + timedelta(seconds=5), START - timedelta(hours=1)
    world.scrape(
        {
            "s1": Reading("old", counters(20)),  # restarted
            "c1": Reading("new", counters(30), created=young),  # came: all of it is new
            "s3": Reading("old", counters(4_000), created=unknown),  # older than the comparison: only seen late
            "x": Reading("other", counters(9)),
        }
    )
    assert world.known.whole.stable.requests == 20
    assert world.known.whole.candidate.requests == 30
    world.scrape({"s1": Reading("old", counters(25)), "s3": Reading("old", counters(4_001))})
    assert world.known.whole.stable.requests == 26
    assert set(world.known.readings) == {"s1", "s3"}


def test_a_pod_that_could_not_be_read_once_goes_on_from_its_last_figures() -> None:
    world = World(spec(ERRORS)).pods(counters(100), counters(10))
    world.scrape({"s": Reading("old", counters(200))}, problems=("pod c: timeout",))
    world.pods(counters(300), counters(50))
    assert world.known.whole.candidate.requests == 40


@pytest.mark.parametrize(
    ("rules", "stable", "candidate", "verdict", "says"),
    [
        pytest.param(spec(ERRORS), counters(1000), counters(50), Verdict.INSUFFICIENT_DATA, "50 of 100", id="too few requests"),
        pytest.param(spec(ERRORS), counters(1000, errors=10), counters(400, errors=4), Verdict.PASS, "not worse", id="healthy"),
        pytest.param(
            spec(ERRORS), counters(1000, errors=10), counters(400, errors=24), Verdict.DEGRADED, "errors: 24 of 400",
            id="6 % errors",
        ),
        pytest.param(
            spec(ERRORS), counters(1000), counters(150, errors=4), Verdict.INSUFFICIENT_DATA, "5 points",
            id="a few errors: not certain yet",
        ),
        pytest.param(
            spec({**ERRORS, "maxRatioToStable": 10}), counters(1000, errors=10), counters(400, errors=24),
            Verdict.INSUFFICIENT_DATA, "not ruled out", id="a ratio of one's own",
        ),
        pytest.param(
            spec({**ERRORS, "max": 0.02, "maxRatioToStable": 100}), counters(1000, errors=50), counters(400, errors=26),
            Verdict.DEGRADED, "max is 0.02", id="beyond max for certain, though stable is no better",
        ),
        pytest.param(
            spec({**ERRORS, "max": 0.02}), counters(1000, errors=20), counters(400, errors=11), Verdict.PASS, "",
            id="a little beyond max may be chance",
        ),
        pytest.param(
            spec(LATENCY), counters(1000, errors=300), counters(100, errors=60), Verdict.DEGRADED, "60 of 100",
            id="more than half failed, whatever is compared",
        ),
        pytest.param(spec(LATENCY), counters(1000, slow=40), counters(400, slow=15), Verdict.PASS, "", id="as slow as stable"),
        pytest.param(spec(LATENCY), counters(1000, slow=10), counters(400, slow=390), Verdict.DEGRADED, "longer than 0.5 s", id="slower"),
        pytest.param(
            spec({**LATENCY, "max": 1.9, "maxRatioToStable": 100}), counters(1000, slow=400), counters(400, slow=150),
            Verdict.DEGRADED, "longer than 2 s", id="a limit is judged at the next edge",
        ),
        pytest.param(
            spec({**LATENCY, "of": "TTFT"}), counters(1000), counters(400), Verdict.INSUFFICIENT_DATA, "0 of 0",
            id="T15: a time that the server does not measure",
        ),
    ],
)  # fmt: skip
def test_verdicts(rules: AnalysisSpec, stable: Counters, candidate: Counters, verdict: Verdict, says: str) -> None:
    world = World(rules).pods(counters(500, errors=5, slow=5), counters(0))
    world.pods(counters(500, errors=5, slow=5), counters(0))
    before = Counters(500, 5, 0, counters(500, slow=5).times)
    grown = replace(
        stable,
        requests=stable.requests + 500,
        errors=stable.errors + 5,
        times={
            Of.DURATION: Histogram(
                {
                    edge: n + before.time(Of.DURATION).buckets[edge]
                    for edge, n in stable.time(Of.DURATION).buckets.items()
                }
            )
        },
    )
    world.pods(grown, candidate)
    found, message = world.say()
    assert found is verdict
    assert says in message


def test_t15_nothing_measured_is_never_success() -> None:
    world = World(spec(ERRORS, minCandidateRequests=0))
    assert world.say()[0] is Verdict.INSUFFICIENT_DATA
    world.scrape({}, problems=("pod c: HTTP 404",))
    found, message = world.say()
    assert (found, "pod c: HTTP 404" in message) == (Verdict.INSUFFICIENT_DATA, True)


def test_t27_a_source_that_falls_silent_is_no_success_whatever_it_said_before() -> None:
    world = World(spec(ERRORS)).pods(counters(500), counters(0)).pods(counters(900), counters(400))
    assert world.say()[0] is Verdict.PASS
    now = world.at
    assert stays_fresh(world.known, interval=10, now=now)
    for _ in range(8):
        world.scrape({}, problems=("http://prometheus:9090: timeout",))
    assert not stays_fresh(world.known, interval=10, now=world.at)
    found, message = world.say(fresh=False)
    assert found is Verdict.INSUFFICIENT_DATA
    assert "since 12:00:10Z; http://prometheus:9090: timeout" in message


def test_figures_are_those_that_status_shows() -> None:
    world = World(spec(ERRORS, LATENCY, SPEED)).pods(counters(500, errors=5), counters(0))
    world.pods(counters(700, errors=9), counters(100, errors=1, slow=2))
    assert world.figures("errors") | {"message": ""} == {
        "name": "errors", "builtin": "errorRate", "verdict": "InsufficientData", "stable": 0.02, "candidate": 0.01,
        "stableEvents": 4, "stableRequests": 200, "candidateEvents": 1, "candidateRequests": 100, "threshold": 60,
        "e": pytest.approx(1, abs=1), "upperBound": pytest.approx(0.03, abs=0.02), "message": "",
    } | ({"verdict": "Pass"} if world.figures("errors")["verdict"] == "Pass" else {})  # fmt: skip
    assert world.figures("latency")["stable"] == pytest.approx(0.475)
    assert world.figures("latency")["edgeSeconds"] == 0.5
    assert (world.figures("speed")["stable"], world.figures("speed")["candidate"]) == (19.6, 9.9)


def test_where_stable_gets_no_requests_any_more_what_it_had_counted_is_the_measure() -> None:
    """BlueGreen after the switch, and a canary at 100."""
    healthy = World(spec(ERRORS, LATENCY)).pods(counters(9_000, errors=90, slow=100), counters(0))
    healthy.pods(counters(9_000, errors=90, slow=100), counters(400, errors=4, slow=5))
    assert healthy.say()[0] is Verdict.PASS
    broken = World(spec(ERRORS)).pods(counters(9_000, errors=90), counters(0))
    broken.pods(counters(9_000, errors=90), counters(400, errors=24))
    assert broken.say()[0] is Verdict.DEGRADED


def test_without_any_figure_of_stable_nothing_is_concluded() -> None:
    world = World(spec(ERRORS)).pods(counters(0), counters(0)).pods(counters(0), counters(400, errors=24))
    assert world.say()[0] is Verdict.INSUFFICIENT_DATA


def test_the_split_counts_arrivals_in_a_stage_only() -> None:
    world = World(spec(ERRORS), share=0.05).pods(counters(0), counters(0), stage="1")
    world.pods(counters(570), counters(0, in_flight=30), stage="1")
    assert mismatch_of(world.known, share=0.05) == "", "slow answers are no missing requests"
    world.pods(counters(1_200), counters(30, in_flight=0), stage="1")
    assert "the candidate got 2.4 % of 1230 requests, expected 5 %" in mismatch_of(world.known, share=0.05)
    assert mismatch_of(world.known, share=None) == ""
    world.pods(counters(1_300), counters(40), stage="")
    assert mismatch_of(world.known, share=0.05) == "", "while traffic moves nothing is expected"


@pytest.mark.parametrize(
    ("metric", "stable", "candidate", "verdict"),
    [
        pytest.param(SALES, 10.0, 10.0, Verdict.PASS, id="as much"),
        pytest.param(SALES, 10.0, 15.0, Verdict.PASS, id="more is better"),
        pytest.param(SALES, 10.0, 5.0, Verdict.DEGRADED, id="less is worse"),
        pytest.param(SALES, 10.0, 9.1, Verdict.INSUFFICIENT_DATA, id="at the edge of the margin"),
        pytest.param(HEAT, 60.0, 60.0, Verdict.PASS, id="lower is better: as much"),
        pytest.param(HEAT, 60.0, 75.0, Verdict.DEGRADED, id="hotter"),
        pytest.param({**HEAT, "maxRatioToStable": 2}, 60.0, 90.0, Verdict.DEGRADED, id="beyond max"),
    ],
)
def test_values_of_a_query(metric: Json, stable: float, candidate: float, verdict: Verdict) -> None:
    world = World(spec(metric, **PROMETHEUS, minCandidateRequests=10))
    for look in range(40):
        noise = 0.5 * (-1) ** look
        values = {metric["name"]: {Variant.STABLE: stable + noise, Variant.CANDIDATE: candidate - noise}}
        world.pods(counters(10 * look), counters(10 * look), values=values)
    assert world.say()[0] is verdict


def test_t16_a_query_that_answers_nothing_is_no_figure() -> None:
    world = World(spec(SALES, **PROMETHEUS, minCandidateRequests=10))
    for look in range(40):
        world.pods(counters(10 * look), counters(10 * look), values={"sales": {Variant.STABLE: 3.0}})
    found, message = world.say()
    assert (found, "no figures of both versions yet" in message) == (Verdict.INSUFFICIENT_DATA, True)


def test_a_query_that_falls_silent_is_no_success_whatever_it_said_before_t16() -> None:
    world = World(spec(SALES, **PROMETHEUS, minCandidateRequests=10))
    for look in range(40):
        values = {"sales": {Variant.STABLE: 3.0, Variant.CANDIDATE: 3.0}}
        world.pods(counters(10 * look), counters(10 * look), values=values)
    assert world.say()[0] is Verdict.PASS
    assert stays_fresh(world.known, interval=10, now=world.at)
    for look in range(40, 48):
        answer = {"sales": {Variant.STABLE: 3.0}}
        world.pods(counters(10 * look), counters(10 * look), values=answer, problems=("sales of candidate: nan",))
    assert not stays_fresh(world.known, interval=10, now=world.at)
    found, message = world.say(fresh=False)
    assert (found, message.endswith("; sales of candidate: nan")) == (Verdict.INSUFFICIENT_DATA, True)


def test_a_stored_comparison_is_the_same_and_another_ones_is_not_taken() -> None:
    world = World(spec(ERRORS, LATENCY, SPEED, SALES, **PROMETHEUS))
    for look in range(4):
        values = {"sales": {Variant.STABLE: 3.0 + look, Variant.CANDIDATE: 2.0}}
        world.pods(counters(100 * look, errors=look), counters(90 * look, errors=look), values=values)
    text = comparison_text(world.known)
    again = comparison_from(text, rollout="1")
    assert again is not None
    assert comparison_text(again) == text
    assert judged(again, spec=world.spec, fresh=True) == judged(world.known, spec=world.spec, fresh=True)
    assert comparison_from(text, rollout="2") is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": 9, "stable": "old"}', "null"])
def test_text_that_means_nothing_begins_anew(text: str) -> None:
    assert comparison_from(text, rollout="1") is None


def test_evidence_of_another_grid_begins_anew() -> None:
    world = World(spec(ERRORS)).pods(counters(0), counters(0)).pods(counters(50, errors=1), counters(50, errors=1))
    raw = json.loads(comparison_text(world.known))
    raw["metrics"]["errors"]["evidence"] = [0.5, 0.5]
    assert comparison_from(json.dumps(raw), rollout="1") is None


def test_a_comparison_of_many_pods_stays_small() -> None:
    world = World(spec(ERRORS, LATENCY))
    edges = [0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, math.inf]
    many = Counters(123_456, 789, 12, {of: Histogram(dict.fromkeys(edges, 123_456.0)) for of in Of})
    world.scrape({f"fin-assistant-0a1b2c3d-{n:05}": Reading("old" if n % 2 else "new", many) for n in range(64)})
    assert len(comparison_text(world.known)) < 100_000


def sold(world: World, *, looks: int, lift: float, heat: float = 0.0) -> World:
    for look in range(looks):
        wave = 0.3 * (-1) ** look
        values = {
            "sales": {Variant.STABLE: 10.0 + wave, Variant.CANDIDATE: 10.0 + lift - wave},
            "heat": {Variant.STABLE: 60.0 + wave, Variant.CANDIDATE: 60.0 + heat - wave},
        }
        world.pods(counters(look), counters(look), values=values)
    return world


@pytest.mark.parametrize(
    ("looks", "lift", "heat", "winner"),
    [
        pytest.param(40, 1.0, 0.0, Variant.CANDIDATE, id="the first metric is better for certain"),
        pytest.param(5, 1.0, 0.0, None, id="too few looks"),
        pytest.param(40, 0.0, 0.0, None, id="nobody is better"),
        pytest.param(40, -1.0, 0.0, Variant.STABLE, id="the first metric is worse"),
        pytest.param(40, 1.0, 5.0, Variant.STABLE, id="another metric is worse"),
    ],
)
def test_who_wins_an_ab_test(looks: int, lift: float, heat: float, winner: Variant | None) -> None:
    world = sold(World(spec(SALES, HEAT, **PROMETHEUS)), looks=looks, lift=lift, heat=heat)
    assert success_of(world.known, spec=world.spec, names=("sales", "heat")).winner is winner


def test_an_ab_test_by_a_metric_that_counts() -> None:
    world = World(spec(ERRORS))
    for look in range(30):
        world.pods(counters(200 * look, errors=20 * look + look % 2), counters(200 * look, errors=4 * look))
    assert success_of(world.known, spec=world.spec, names=("errors",)).winner is Variant.CANDIDATE
    assert success_of(world.known, spec=world.spec, names=("unknown",)).winner is None
