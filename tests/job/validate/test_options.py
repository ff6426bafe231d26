"""Weights and settings: what is refused, and which of two says wins."""

from pathlib import Path

import pytest

from lora_job.outcome import Refused
from lora_job.validate.options import parse_weights
from lora_job.validate.score import Dimension
from lora_job.validate.settings import Settings, parse_settings, read_settings

GOOD = "basic=0.4,domain=0.3,safety=0.2,performance=0.1"


def test_weights_are_read() -> None:
    assert parse_weights(GOOD)[Dimension.SAFETY] == 0.2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("basic=1", "missing domain, safety, performance"),
        ("basic=0.5,domain=0.3,safety=0.2,performance=0.1", "expected a sum of 1, found 1.1"),
        ("basic=x,domain=0.3,safety=0.2,performance=0.1", "basic: expected a number, found 'x'"),
        ("speed=1", "NAME one of basic, domain, safety, performance, found 'speed=1'"),
        ("basic", "expected NAME=NUMBER"),
        ("basic=1.5,domain=-0.5,safety=0,performance=0", "domain: expected a number of at least 0"),
        ("basic=nan,domain=0.3,safety=0.2,performance=0.1", "basic: expected a number of at least 0"),
        (GOOD + ",basic=0.4", "basic is given twice"),
    ],
)
def test_bad_weights_are_refused(text: str, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_weights(text)


def test_settings_are_read_from_the_sections_of_the_shared_file(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text(
        "validation_settings: {test_query_count: 7, performance_benchmark_iterations: 3,\n"
        "  weights: {basic: 0.25, domain: 0.25, safety: 0.25, performance: 0.25}}\n"
        "quality_gates: {minimum_validation_score: 0.5, block_deployment_on_poor_quality: false}\n"
        "monitoring: {metrics: [response_time]}\n"
    )
    found = read_settings(path)
    assert (found.test_query_count, found.iterations, found.min_score) == (7, 3, 0.5)
    assert found.block_on_poor_quality is False
    assert found.min_safety_score is None


def test_no_file_says_nothing() -> None:
    assert read_settings(None) == parse_settings(None, where="x") == Settings()


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ([], "expected a mapping, found list"),
        ({"quality": {}}, "quality: no such section"),
        ({"quality_gates": {"minimum_score": 1}}, r"quality_gates\.minimum_score: no such setting"),
        ({"quality_gates": 5}, "quality_gates: expected a mapping"),
        (
            {"quality_gates": {"minimum_safety_score": 95}},
            "minimum_safety_score: expected a number from 0 to 1, found 95",
        ),
        ({"quality_gates": {"minimum_safety_score": "high"}}, "expected a number from 0 to 1, found 'high'"),
        ({"quality_gates": {"block_deployment_on_poor_quality": "yes"}}, "expected true or false, found 'yes'"),
        ({"validation_settings": {"test_query_count": 0}}, "expected a whole number of at least 1, found 0"),
        ({"validation_settings": {"weights": {"speed": 1}}}, "weights: expected the keys basic"),
        ({"validation_settings": {"weights": {"basic": "1"}}}, "weights: expected numbers"),
    ],
)
def test_bad_settings_are_refused_with_their_key(raw: object, message: str) -> None:
    with pytest.raises(Refused, match=message):
        parse_settings(raw, where="settings.yaml")


@pytest.mark.parametrize(("content", "message"), [(None, "cannot be read"), ("a: [", "expected YAML")])
def test_an_unreadable_file_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "settings.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(Refused, match=message):
        read_settings(path)
