"""Does the live object already say all that is wanted?"""

from typing import Any

import pytest

from lora_operator.core.build.compare import says_all_of


@pytest.mark.parametrize(
    ("live", "wanted", "same"),
    [
        pytest.param({"a": 1, "b": 2}, {"a": 1}, True, id="what the API server added is its own"),
        pytest.param({"a": 1}, {"a": 2}, False, id="another value"),
        pytest.param({}, {"a": {}}, True, id="an empty value is dropped by the API server"),
        pytest.param({}, {"a": False}, True, id="false is dropped"),
        pytest.param({}, {"a": 0}, True, id="zero is dropped"),
        pytest.param({}, {"a": 1}, False, id="a missing value"),
        pytest.param({"cpu": "1"}, {"cpu": "1000m"}, True, id="one processor written two ways"),
        pytest.param({"memory": "20Gi"}, {"memory": "20480Mi"}, True, id="one size written two ways"),
        pytest.param({"memory": "20Gi"}, {"memory": "20G"}, False, id="binary and decimal are not the same"),
        pytest.param({"gpu": "1"}, {"gpu": 1}, True, id="a number stored as a string"),
        pytest.param({"rules": [1, 2]}, {"rules": [1]}, False, id="a list is compared whole"),
        pytest.param({"rules": [{"a": 1, "d": 0}]}, {"rules": [{"a": 1}]}, True, id="defaults inside a list"),
        pytest.param({"flag": True}, {"flag": 1}, True, id="true is true"),
        pytest.param({"text": "1.2.3"}, {"text": "1.2.30"}, False, id="a version is no quantity"),
        pytest.param(
            {"ownerReferences": []}, {"ownerReferences": [{"uid": "x"}]}, True, id="owners are judged elsewhere"
        ),
    ],
)
def test_says_all_of(live: Any, wanted: Any, same: bool) -> None:
    assert says_all_of(live, wanted) is same
