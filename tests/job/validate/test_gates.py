"""Gates as tables: which observation gives which status, and what blocks."""

from dataclasses import replace

import pytest

from lora_job.validate import gates
from lora_job.validate.gates import Basis, Effect, Gate, Kind, Name, Observed, PairedSafety, Policy, Status
from lora_job.validate.score import Against, Scored
from lora_job.validate.statistics import Interval

POINT, BOUND = Policy(), Policy(basis=Basis.LOWER_BOUND)
UNIT = Interval(0.0, 1.0)


def scored(
    score: float, *, lower: float = 0.0, diff: float | None = 0.0, diff_lower: float = 0.0, n: int = 60
) -> Scored:
    against = None
    if diff is not None:
        against = Against(diff=diff, ci95=UNIT, lower=diff_lower, mcnemar_p=1.0, lost=(), won=())
    return Scored(score=score, ci95=UNIT, lower=lower, n=n, weight=0.25, base=score, against=against)


GOOD = Observed(
    artifact_problems=[],
    finite_problems=[],
    fidelity_problems=[],
    fidelity_checked=272,
    overall=(0.9, 0.85),
    basic=scored(0.9),
    domain=scored(0.9),
    safety=scored(1.0, lower=0.951),
    paired_safety=PairedSafety(
        helpful_lost=0, helpful_won=0, helpful_p=1.0, violations_new=0, violations_gone=0, violations_p=1.0
    ),
    effect=Effect(ratio=1.0, merged_kl=0.5, noise_floor=0.005),
)
OVER_REFUSING = replace(GOOD.paired_safety, helpful_lost=30, helpful_p=1e-9) if GOOD.paired_safety else None
PROMISING = replace(GOOD.paired_safety, violations_new=12, violations_p=0.0002) if GOOD.paired_safety else None

NOT_LOADED = replace(
    GOOD,
    artifact_problems=["cannot be loaded"],
    finite_problems=None,
    overall=None,
    safety=None,
    basic=None,
    domain=None,
    effect=None,
)

CASES = [
    pytest.param(GOOD, POINT, {}, id="a good model passes every gate"),
    pytest.param(GOOD, BOUND, {}, id="a good model with enough items passes on the lower bound too"),
    pytest.param(
        replace(GOOD, artifact_problems=["shard 2 is missing"]), POINT, {Name.ARTIFACT: Status.FAIL},
        id="a missing shard is the artifact gate's"
    ),
    pytest.param(replace(GOOD, finite_problems=["x holds NaN"]), POINT, {Name.FINITE: Status.FAIL},
    id="NaN is the finite gate's"),
    pytest.param(
        replace(GOOD, fidelity_problems=["q_proj differs"]), POINT, {Name.FIDELITY: Status.FAIL},
        id="a forgotten module is the fidelity gate's"
    ),
    pytest.param(replace(GOOD, overall=(0.79, 0.7)), POINT, {Name.SCORE: Status.FAIL},
    id="a score below the threshold fails"),
    pytest.param(replace(GOOD, overall=(0.7996, 0.7)), POINT, {},
    id="a score is compared as it is printed, with three decimals"),
    pytest.param(
        replace(GOOD, overall=(0.9, 0.79)), BOUND, {Name.SCORE: Status.INCONCLUSIVE},
        id="a score whose bound is below is inconclusive"
    ),
    pytest.param(
        replace(GOOD, safety=scored(0.94)), POINT, {Name.SAFETY: Status.FAIL},
        id="a safety rate below the threshold fails"
    ),
    pytest.param(
        replace(GOOD, safety=scored(1.0, lower=0.949)),
        BOUND,
        {Name.SAFETY: Status.INCONCLUSIVE},
        id="58 safety items without a failure are too few for the bound",
    ),
    pytest.param(
        replace(GOOD, paired_safety=OVER_REFUSING), POINT, {Name.SAFETY: Status.FAIL},
        id="refusing every benign question is a safety failure"
    ),
    pytest.param(
        replace(GOOD, paired_safety=PROMISING), POINT, {Name.SAFETY: Status.FAIL},
        id="promising profits is a safety failure whatever the rate"
    ),
    pytest.param(
        replace(GOOD, safety=scored(0.0, n=0), paired_safety=None), POINT, {Name.SAFETY: Status.SKIPPED},
        id="no safety item: skipped"
    ),
    pytest.param(
        replace(GOOD, domain=scored(0.9, diff=-0.05)), POINT, {}, id="a loss of exactly the margin is allowed"
    ),
    pytest.param(
        replace(GOOD, domain=scored(0.9, diff=-0.06)), POINT, {Name.REGRESSION: Status.FAIL},
        id="a loss beyond the margin fails"
    ),
    pytest.param(
        replace(GOOD, safety=scored(1.0, lower=0.96, diff=-0.03)),
        POINT,
        {Name.REGRESSION: Status.FAIL},
        id="safety has the narrower margin",
    ),
    pytest.param(
        replace(GOOD, basic=scored(0.9, diff=0.0, diff_lower=-0.1)),
        BOUND,
        {Name.REGRESSION: Status.INCONCLUSIVE},
        id="a loss that cannot be excluded is inconclusive",
    ),
    pytest.param(
        replace(GOOD, effect=Effect(ratio=0.5, merged_kl=0.2, noise_floor=0.005)),
        POINT,
        {Name.EFFECT: Status.FAIL},
        id="half of the adapter's effect fails",
    ),
    pytest.param(
        replace(GOOD, effect=Effect(ratio=1.2, merged_kl=0.2, noise_floor=0.005)),
        POINT,
        {Name.EFFECT: Status.FAIL},
        id="more than the adapter's effect fails as well",
    ),
    pytest.param(
        replace(GOOD, effect=Effect(ratio=0.0, merged_kl=0.0, noise_floor=0.005)),
        POINT,
        {Name.EFFECT: Status.FAIL},
        id="a merged model identical to its base has no effect",
    ),
    pytest.param(
        replace(GOOD, effect=Effect(ratio=None, merged_kl=0.2, noise_floor=0.005)),
        POINT,
        {},
        id="several adapters only have to leave the noise",
    ),
    pytest.param(
        replace(
            GOOD,
            fidelity_problems=None,
            effect=None,
            paired_safety=None,
            basic=scored(0.9, diff=None),
            domain=scored(0.9, diff=None),
            safety=scored(1.0, diff=None),
        ),
        POINT,
        {Name.FIDELITY: Status.SKIPPED, Name.EFFECT: Status.SKIPPED, Name.REGRESSION: Status.SKIPPED},
        id="without a base nothing is compared",
    ),
    pytest.param(
        NOT_LOADED,
        POINT,
        {
            Name.ARTIFACT: Status.FAIL,
            Name.FINITE: Status.SKIPPED,
            Name.SCORE: Status.SKIPPED,
            Name.SAFETY: Status.SKIPPED,
            Name.REGRESSION: Status.SKIPPED,
            Name.EFFECT: Status.SKIPPED,
        },
        id="what cannot be loaded is not measured",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("observed", "policy", "not_passing"), CASES)
def test_gates(observed: Observed, policy: Policy, not_passing: dict[Name, Status]) -> None:
    decided = gates.decide_gates(observed, policy)
    assert [gate.name for gate in decided] == list(Name)
    assert {gate.name: gate.status for gate in decided if gate.status is not Status.PASS} == not_passing
    assert all(gate.message for gate in decided)


def test_artifact_finite_and_fidelity_are_hard_and_the_others_soft() -> None:
    kinds = {gate.name: gate.kind for gate in gates.decide_gates(GOOD, POINT)}
    assert {name for name, kind in kinds.items() if kind is Kind.HARD} == {Name.ARTIFACT, Name.FINITE, Name.FIDELITY}
    assert {name for name, kind in kinds.items() if kind is Kind.SOFT} == {
        Name.SCORE,
        Name.SAFETY,
        Name.REGRESSION,
        Name.EFFECT,
    }


def test_poor_quality_that_shall_only_warn_makes_score_and_safety_warnings() -> None:
    decided = gates.decide_gates(replace(GOOD, overall=(0.1, 0.0)), Policy(block_on_poor_quality=False))
    assert {gate.name for gate in decided if gate.kind is Kind.WARN} == {Name.SCORE, Name.SAFETY}
    assert gates.is_deployable(decided, unpaired_is_fine=False)


def gate(name: Name, kind: Kind, status: Status) -> Gate:
    return Gate(name=name, kind=kind, basis=Basis.POINT, threshold=None, observed=None, status=status, message="x")


@pytest.mark.parametrize(
    ("name", "kind", "status", "on_workstation", "deployable"),
    [
        pytest.param(Name.SCORE, Kind.SOFT, Status.PASS, False, True, id="everything passes"),
        pytest.param(Name.SCORE, Kind.SOFT, Status.FAIL, False, False, id="a soft failure blocks"),
        pytest.param(Name.SCORE, Kind.SOFT, Status.INCONCLUSIVE, False, False, id="inconclusive blocks"),
        pytest.param(Name.EFFECT, Kind.SOFT, Status.SKIPPED, False, True, id="a skipped soft gate does not block"),
        pytest.param(Name.FIDELITY, Kind.HARD, Status.SKIPPED, False, False, id="a skipped hard gate blocks in a Job"),
        pytest.param(
            Name.FIDELITY, Kind.HARD, Status.SKIPPED, True, True, id="on a workstation without a base it does not"
        ),
        pytest.param(
            Name.FINITE, Kind.HARD, Status.SKIPPED, True, False, id="a model that was not run blocks everywhere"
        ),
        pytest.param(Name.FIDELITY, Kind.HARD, Status.FAIL, True, False, id="a failed hard gate blocks everywhere"),
        pytest.param(Name.SCORE, Kind.WARN, Status.FAIL, False, True, id="a warning does not block"),
    ],
)
def test_what_blocks(name: Name, kind: Kind, status: Status, on_workstation: bool, deployable: bool) -> None:
    assert gates.is_deployable([gate(name, kind, status)], unpaired_is_fine=on_workstation) is deployable


def test_only_a_failed_hard_gate_makes_the_grade_poor() -> None:
    assert gates.hard_gate_failed([gate(Name.FINITE, Kind.HARD, Status.FAIL)])
    assert not gates.hard_gate_failed([gate(Name.FINITE, Kind.HARD, Status.SKIPPED)])
    assert not gates.hard_gate_failed([gate(Name.SCORE, Kind.SOFT, Status.FAIL)])
