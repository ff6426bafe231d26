"""The watcher's own arithmetic, without a cluster."""

import pytest

from tests.e2e.truth import SKEW, Segment, Timeline, Truth, oldest

AGES: dict[str, tuple[list[Segment], list[Segment], float]] = {
    "what is true is not old": ([(0, 9, 25)], [(0, 9, 25)], 0),
    "said for a second after it had changed": ([(0, 6, 25), (6, 9, 50)], [(0, 5, 25), (5, 9, 50)], 1),
    "said again long after it had been so": ([(0, 5, 25), (5, 8, 0), (8, 9, 25)], [(0, 5, 25), (5, 9, 0)], 4),
    "never true": ([(4, 9, 25)], [(0, 9, 0)], 9),
    "news of the truth may come a moment later": ([(4, 9, 25)], [(0, 4 + SKEW / 2, 0), (4 + SKEW / 2, 9, 25)], 0),
    "nothing said, nothing old": ([(0, 9, None)], [(0, 9, 1)], 0),
}


@pytest.mark.parametrize(("said", "true", "age"), AGES.values(), ids=AGES)
def test_how_old_is_what_was_said(said: list[Segment], true: list[Segment], age: float) -> None:
    assert oldest(said, true) == pytest.approx(age)


def test_for_how_long_something_was_so() -> None:
    truth = Truth.__new__(Truth)
    truth.began, truth.ended = 0.0, 10.0
    truth.weights = Timeline([(0.0, {"a": 100}), (4.0, {"a": 50, "b": 50})])
    truth.ready = Timeline([(0.0, {"a": 1}), (6.0, {"a": 1, "b": 1})])
    without_a_pod = lambda weights, ready: any(not ready.get(revision) for revision in weights)  # noqa: E731
    assert truth.longest(without_a_pod) == pytest.approx(2.0)
    assert truth.weights_of("b") == [0, 50]
