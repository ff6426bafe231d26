"""Which fields a manager applied, read from managedFields as real API servers write them."""

from typing import Any

import pytest

from lora_client.ownership import applied_labels, applied_spec

Json = dict[str, Any]
SPEC: Json = {
    "adapterRef": {"name": "v1"},
    "runtime": {"profile": "vllm", "args": ["--x"], "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
    "traffic": {"service": {}},
    "replicas": 2,
}


def stored(fields: Json, *, manager: str = "lora-client", operation: str = "Apply", **more: Any) -> Json:
    entry = {"manager": manager, "operation": operation, "fieldsV1": fields, **more}
    return {"metadata": {"labels": {"a": "1", "b": "2"}, "managedFields": [entry]}, "spec": SPEC}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"f:adapterRef": {"f:name": {}}}, {"adapterRef": {"name": "v1"}}, id="a field of a field"),
        pytest.param({"f:adapterRef": {".": {}, "f:name": {}}}, {"adapterRef": {"name": "v1"}}, id="a map and a field"),
        pytest.param(
            {"f:runtime": {"f:profile": {}}}, {"runtime": {"profile": "vllm"}}, id="not what others set beside"
        ),
        pytest.param({"f:runtime": {"f:args": {}}}, {"runtime": {"args": ["--x"]}}, id="a list that is one field"),
        pytest.param({"f:traffic": {"f:service": {}}}, {"traffic": {"service": {}}}, id="an empty map"),
        pytest.param(
            {"f:runtime": {"f:env": {'k:{"name":"B"}': {".": {}, "f:name": {}, "f:value": {}}}}},
            {"runtime": {"env": [{"name": "B", "value": "2"}]}},
            id="an item of a list by its key",
        ),
        pytest.param(
            {"f:runtime": {"f:args": {'v:"--x"': {}}}}, {"runtime": {"args": ["--x"]}}, id="an item by its value"
        ),
        pytest.param({"f:gone": {"f:x": {}}}, {}, id="nothing that somebody removed since"),
    ],
)
def test_of_spec_it_applied(fields: Json, expected: Json) -> None:
    assert applied_spec(stored({"f:spec": fields}), manager="lora-client") == expected


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"manager": "argocd"}, id="another manager's"),
        pytest.param({"operation": "Update"}, id="what it merely wrote"),
        pytest.param({"subresource": "status"}, id="a subresource's"),
    ],
)
def test_it_did_not_apply(more: Json) -> None:
    fields = {"f:spec": {"f:replicas": {}}, "f:metadata": {"f:labels": {"f:a": {}}}}
    assert applied_spec(stored(fields, **more), manager="lora-client") == {}
    assert applied_labels(stored(fields, **more), manager="lora-client") == {}


def test_labels_are_read_alike() -> None:
    found = stored({"f:metadata": {"f:labels": {"f:b": {}}}})
    assert applied_labels(found, manager="lora-client") == {"b": "2"}


def test_an_object_without_managers_was_applied_by_nobody() -> None:
    assert applied_spec({"metadata": {}, "spec": SPEC}, manager="lora-client") == {}
