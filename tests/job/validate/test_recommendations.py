"""Advice is a function of findings."""

from dataclasses import replace

import pytest

from lora_job.validate.gates import Basis, Gate, Kind, Name, Status
from lora_job.validate.recommendations import Findings, Severity, recommend
from lora_job.validate.score import Dimension, Scored
from lora_job.validate.statistics import Interval


def scored(score: float, *, n: int = 10) -> Scored:
    return Scored(score=score, ci95=Interval(0, 1), lower=0.0, n=n, weight=0.25, base=None, against=None)


def gate(name: Name, status: Status) -> Gate:
    return Gate(name=name, kind=Kind.SOFT, basis=Basis.POINT, threshold=0.8, observed=0.5, status=status, message="why")


FINE = Findings(
    gates=[gate(name, Status.PASS) for name in Name],
    dimensions={name: scored(0.9) for name in Dimension},
    paired=True,
    retention_min=1.0,
    drift_ratio=1.0,
    calibration_error=0.05,
    suite_expired=False,
)


@pytest.mark.parametrize(
    ("findings", "codes"),
    [
        pytest.param(FINE, [], id="nothing to say about a good model"),
        pytest.param(replace(FINE, paired=False), ["NoBase"], id="an unpaired run"),
        pytest.param(replace(FINE, retention_min=0.39), ["DeltaRounded"], id="bfloat16 swallowed the delta"),
        pytest.param(replace(FINE, drift_ratio=1.3), ["LanguageDrift"], id="plain text became harder"),
        pytest.param(replace(FINE, calibration_error=0.4), ["PoorCalibration"], id="overconfident"),
        pytest.param(replace(FINE, suite_expired=True), ["SuiteExpired"], id="an old suite"),
        pytest.param(
            replace(FINE, dimensions={**FINE.dimensions, Dimension.PERFORMANCE: scored(0.5)}),
            ["SlowerThanBase", "WeakestDimension"],
            id="slower than the base",
        ),
        pytest.param(
            replace(FINE, dimensions={**FINE.dimensions, Dimension.DOMAIN: scored(0.0, n=0)}),
            [],
            id="what was not measured is not weak",
        ),
        pytest.param(
            replace(FINE, gates=[gate(Name.SAFETY, Status.INCONCLUSIVE)]), ["MoreItemsNeeded"], id="too few items"
        ),
    ],
)
def test_advice(findings: Findings, codes: list[str]) -> None:
    assert [one.code for one in recommend(findings)] == codes


@pytest.mark.parametrize("name", list(Name))
def test_every_failed_gate_has_advice_in_both_languages_with_the_number(name: Name) -> None:
    (advice,) = recommend(replace(FINE, gates=[gate(name, Status.FAIL)]))
    assert advice.severity is Severity.ERROR
    assert advice.value == 0.5
    assert "why" in advice.en
    assert any("\u4e00" <= character <= "\u9fff" for character in advice.zh)


def test_the_most_urgent_comes_first() -> None:
    findings = replace(FINE, retention_min=0.1, paired=False, gates=[gate(Name.SCORE, Status.FAIL)])
    assert [one.severity for one in recommend(findings)] == [Severity.ERROR, Severity.WARNING, Severity.INFO]
