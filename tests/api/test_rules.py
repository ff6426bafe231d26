"""Every schema and CEL rule on the real API server: one object accepted, one refused with words that help."""

import copy
import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

import pytest
import yaml

from tests.api.conftest import CRDS, Api
from tests.api.objects import changed
from tests.api.rules import ADAPTER_RULES, DEPLOYMENT_RULES, UPDATE_RULES, Rule

pytestmark = pytest.mark.api

ON_CREATE = [
    pytest.param(rule, id=f"{rule.manifest['kind']}: {rule.sentence}") for rule in (*ADAPTER_RULES, *DEPLOYMENT_RULES)
]
ON_UPDATE = [pytest.param(rule, id=f"LoRAAdapter: {rule.sentence}") for rule in UPDATE_RULES]


@pytest.mark.parametrize("rule", ON_CREATE)
def test_accepts(api: Api, rule: Rule) -> None:
    answer = api.create(changed(rule.manifest, rule.accepts))
    assert answer.status_code == 201, answer.json()["message"]


@pytest.mark.parametrize("rule", ON_CREATE)
def test_refuses(api: Api, rule: Rule) -> None:
    answer = api.create(changed(rule.manifest, rule.refuses))
    assert answer.status_code in (400, 422), answer.text
    assert rule.says in answer.json()["message"]


@pytest.mark.parametrize("rule", ON_UPDATE)
def test_accepts_and_refuses_an_update(api: Api, rule: Rule) -> None:
    assert rule.before is not None
    first = changed(rule.manifest, {**rule.before, "metadata.name": f"u-{uuid4().hex[:8]}"})
    stored = api.create(first, keep=True)
    assert stored.status_code == 201, stored.text
    for changes, status in ((rule.accepts, 200), (rule.refuses, 422)):
        answer = api.update(changed(stored.json(), changes))
        assert answer.status_code == status, answer.text
    assert rule.says in answer.json()["message"]


def test_every_rule_of_the_schemas_is_refused_by_a_case_of_the_table() -> None:
    refusals = [rule.says for rule in (*ADAPTER_RULES, *DEPLOYMENT_RULES, *UPDATE_RULES)]
    untested = [
        f"{path}: {rule['rule']}"
        for path, rule in _rules()
        if not any(_core(says) in f"{rule['message']} {rule.get('messageExpression', '')}" for says in refusals)
    ]
    assert untested == []


def test_every_rule_has_a_message_that_says_expected_and_what_to_do() -> None:
    for path, rule in _rules():
        message = rule["message"]
        assert "expected" in message, (path, message)
        assert ";" in message, (path, message)


def _core(says: str) -> str:
    """The fixed part of a refusal: without the field's path and what was found."""
    words = says.rsplit("Invalid value: ", maxsplit=1)[-1]
    return words[words.index("expected") :] if "found" in words and "expected" in words else words


def _rules() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        yield from _walk(copy.deepcopy(schema), path=crd["spec"]["names"]["kind"])


def _walk(schema: Any, *, path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(schema, dict):
        for rule in schema.get("x-kubernetes-validations", []):
            yield path, rule
        for key, value in schema.items():
            yield from _walk(value, path=path if key in ("properties", "items") else f"{path}.{key}")


def test_the_rules_are_within_the_cost_budget(api: Api) -> None:
    """The API server refuses a CRD that could cost too much; Established says it did not."""
    for name in ("loraadapters", "loradeployments"):
        crd = api.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}.loraops.dev")
        states = {one["type"]: one["status"] for one in crd["status"]["conditions"]}
        assert states["Established"] == "True", json.dumps(states)
        assert "NonStructuralSchema" not in states
