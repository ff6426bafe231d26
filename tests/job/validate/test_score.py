"""Dimensions, overall score, grades."""

import pytest

from lora_job.validate import score
from lora_job.validate.judge import Row
from lora_job.validate.score import Dimension, Grade, Scored
from lora_job.validate.statistics import Interval
from lora_job.validate.suite import Suite

from .items import choice, generate, row, safety


def general(candidate: list[int], base: list[int] | None = None) -> list[Row]:
    return [
        row(choice(f"g-{place}"), right, None if base is None else base[place]) for place, right in enumerate(candidate)
    ]


def basic(rows: list[Row]) -> Scored:
    return score.score_items(rows, dimension=Dimension.BASIC, weight=0.4)


@pytest.mark.parametrize(
    ("right", "expected"),
    [
        pytest.param([1, 1, 1, 1], 1.0, id="all right is 1"),
        pytest.param([1, 0, 0, 0], 0.0, id="a quarter of four choices is guessing"),
        pytest.param([0, 0, 0, 0], 0.0, id="worse than guessing is floored at 0"),
        pytest.param([1, 1, 1, 0], 2 / 3, id="three of four is two thirds of the way from guessing"),
    ],
)
def test_basic_is_corrected_for_guessing(right: list[int], expected: float) -> None:
    assert basic(general(right)).score == pytest.approx(expected)


def test_the_difference_to_the_base_is_not_corrected_and_lists_flips() -> None:
    scored = basic(general([1, 0, 1, 1], [0, 1, 1, 1]))
    assert scored.against is not None
    assert scored.against.diff == 0
    assert (scored.against.lost, scored.against.won) == (("g-1",), ("g-0",))
    assert scored.against.mcnemar_p == 1.0


def test_an_identical_model_differs_by_nothing() -> None:
    scored = basic(general([1, 0, 1, 0] * 5, [1, 0, 1, 0] * 5))
    assert scored.against is not None
    assert (scored.against.diff, scored.against.lower, scored.against.ci95) == (0.0, 0.0, Interval(0.0, 0.0))


def test_domain_is_the_mean_of_its_three_parts_whatever_their_size() -> None:
    rows = [row(choice(f"f-{place}", suite=Suite.FINANCE), 1) for place in range(9)]
    rows += [row(generate("q-1"), 0), row(choice("t-1", suite=Suite.TERMINOLOGY), 0)]
    scored = score.score_items(rows, dimension=Dimension.DOMAIN, weight=0.3)
    assert scored.score == pytest.approx(1 / 3)
    assert scored.n == 11


def test_safety_is_the_rate_with_exact_bounds() -> None:
    scored = score.score_items(
        [row(safety(f"s-{place}"), 1) for place in range(59)], dimension=Dimension.SAFETY, weight=0.2
    )
    assert scored.score == 1.0
    assert scored.lower >= 0.95
    assert scored.against is None
    assert scored.base is None


def test_a_dimension_without_items_scores_zero_and_says_so() -> None:
    scored = basic([])
    assert (scored.score, scored.n, scored.against) == (0.0, 0, None)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [([0.5, 0.5], 0.5), ([1.2, 1.2], 1.0), ([], 0.0)],
    ids=["half as fast", "faster", "not measured"],
)
def test_performance_is_the_ratio_to_the_base_and_at_most_one(ratios: list[float], expected: float) -> None:
    assert score.score_performance(ratios, weight=0.1).score == pytest.approx(expected)


def dimension(value: float, weight: float) -> Scored:
    return Scored(
        score=value, ci95=score.UNIT, lower=0.0, n=1, weight=weight, base=None, against=None, draws=(value,) * 10
    )


def test_the_overall_score_is_the_weighted_sum_and_also_given_without_performance() -> None:
    overall = score.combine(
        {
            Dimension.BASIC: dimension(1.0, 0.4),
            Dimension.DOMAIN: dimension(0.5, 0.3),
            Dimension.SAFETY: dimension(0.5, 0.2),
            Dimension.PERFORMANCE: dimension(0.0, 0.1),
        }
    )
    assert overall.score == pytest.approx(0.65)
    assert overall.without_performance == pytest.approx(0.65 / 0.9)
    assert overall.ci95.low == pytest.approx(0.65)


def test_an_unmeasured_dimension_is_not_renormalised_away() -> None:
    overall = score.combine({Dimension.BASIC: dimension(1.0, 0.9), Dimension.PERFORMANCE: score.unmeasured(0.1)})
    assert overall.score == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("value", "failed", "grade"),
    [
        (0.95, False, Grade.EXCELLENT),
        (0.9, False, Grade.EXCELLENT),
        (0.8996, False, Grade.EXCELLENT),
        (0.85, False, Grade.GOOD),
        (0.6, False, Grade.FAIR),
        (0.599, False, Grade.POOR),
        (0.95, True, Grade.POOR),
    ],
)
def test_grades(value: float, failed: bool, grade: Grade) -> None:
    assert score.grade_of(value, hard_gate_failed=failed) is grade
