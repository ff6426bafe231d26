"""`spec.strategy`: what is read, what is refused by name, what is not built yet, and which edits leave taken steps as they were."""

from typing import Any

import pytest

from lora_operator.api.deployment import Deployment, parse_deployment
from lora_operator.api.errors import Invalid
from lora_operator.api.strategy import ABTest, Match, OnEnd, OnTimeout, StrategyType

STEPS = "spec.strategy.canary.steps"


def deployment(strategy: dict[str, Any] | None = None, **spec: Any) -> Deployment:
    return parse_deployment(
        {
            "metadata": {"name": "fin", "namespace": "shop", "uid": "u"},
            "spec": {
                "adapterRef": {"name": "v1"},
                "runtime": {"profile": "transformers"},
                "traffic": {"service": {}},
                **({} if strategy is None else {"strategy": strategy}),
                **spec,
            },
        }
    )


def canary(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Canary", "canary": {"steps": list(steps)}}


def ab_test(**members: Any) -> dict[str, Any]:
    return {
        "type": "ABTest",
        "abTest": {"split": {"stable": 70, "candidate": 30}, "successMetrics": ["conversion"], **members},
    }


def test_every_member_of_a_test_is_read() -> None:
    said = ab_test(
        durationSeconds=60,
        match={"cookie": {"name": "variant", "value": "b"}},
        rollbackConditions={"maxErrorRate": 0.05, "maxPerformanceDegradation": 0.2},
        onEnd="Pause",
    )
    assert deployment(said).strategy.ab_test == ABTest(
        candidate_weight=30,
        duration_seconds=60,
        match=Match(kind="cookie", name="variant", value="b"),
        success_metrics=("conversion",),
        max_error_rate=0.05,
        max_performance_degradation=0.2,
        on_end=OnEnd.PAUSE,
    )


def test_a_short_test_has_the_stored_defaults() -> None:
    test = deployment(ab_test()).strategy.ab_test
    assert test is not None
    assert (test.duration_seconds, test.match, test.max_error_rate, test.on_end) == (86400, None, None, "PromoteWinner")


def test_a_silent_spec_is_replace_with_the_stored_defaults() -> None:
    strategy = deployment().strategy
    assert strategy.type is StrategyType.REPLACE
    assert (strategy.blue_green.switch_delay_seconds, strategy.blue_green.auto_promote) == (None, True)
    assert strategy.blue_green.keep_previous_seconds == 600
    assert strategy.steps == ()


def test_steps_are_read_in_order() -> None:
    pause = {"pause": {"timeoutSeconds": 60, "onTimeout": "Promote"}}
    steps = deployment(canary({"setWeight": 0}, {"pause": {"seconds": 5}}, pause, {"pause": {}})).strategy.steps
    assert [step.weight for step in steps] == [0, None, None, None]
    assert [step.bake_seconds for step in steps] == [None, 5, None, None]
    assert [step.is_approval for step in steps] == [False, False, True, True]
    assert [(step.timeout_seconds, step.on_timeout) for step in steps[2:]] == [
        (60, OnTimeout.PROMOTE),
        (None, OnTimeout.ABORT),
    ]


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        pytest.param({"type": "BlueGren"}, "spec.strategy.type: found 'BlueGren'", id="an unknown type"),
        pytest.param(canary({"setWeight": 101}), f"{STEPS}[0].setWeight: found 101", id="a weight above 100"),
        pytest.param(canary({}), f"{STEPS}[0]: found 'none', expected exactly one of setWeight", id="an empty step"),
        pytest.param(
            canary({"setWeight": 5, "pause": {}}), f"{STEPS}[0]: found ['setWeight', 'pause']", id="two in one"
        ),
        pytest.param(canary({"pause": {"seconds": 0}}), f"{STEPS}[0].pause.seconds: found 0", id="a pause of nothing"),
        pytest.param(
            {"type": "BlueGreen", "blueGreen": {"autoPromote": "no"}},
            "spec.strategy.blueGreen.autoPromote: found 'no'",
            id="a word for a boolean",
        ),
        pytest.param(
            {"type": "ABTest"}, "spec.strategy.abTest: found 'none', expected split", id="a test without a split"
        ),
        pytest.param(
            ab_test(split={"stable": 70, "candidate": 20}), "abTest.split: found '70 + 20'", id="a split of 90"
        ),
        pytest.param(
            ab_test(successMetrics=[]), "abTest.successMetrics: found 'none'", id="a test that measures nothing"
        ),
        pytest.param(
            ab_test(match={"header": {"name": "a", "value": "b"}, "cookie": {"name": "a", "value": "b"}}),
            "abTest.match: found ['header', 'cookie'], expected exactly one",
            id="two ways of forced assignment",
        ),
    ],
)
def test_what_cannot_be_read_is_named(strategy: dict[str, Any], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        deployment(strategy)
    assert words in str(refused.value)


def test_a_prefix_changes_with_its_own_steps_alone() -> None:
    before = deployment(canary({"setWeight": 5}, {"pause": {"seconds": 5}}, {"setWeight": 50})).strategy
    behind = deployment(canary({"setWeight": 5}, {"pause": {"seconds": 5}}, {"setWeight": 60}, {"pause": {}})).strategy
    inside = deployment(canary({"setWeight": 5}, {"pause": {"seconds": 6}}, {"setWeight": 50})).strategy
    assert before.prefix(2) == behind.prefix(2)
    assert before.prefix(2) != inside.prefix(2)
    assert before.prefix(1) == inside.prefix(1)
