"""The client's own copy of the operator's words never drifts from them."""

import ast
from pathlib import Path

from lora_client import names
from lora_client.requests import request_patch
from lora_operator.api import kinds
from lora_operator.api import names as operator_names
from lora_operator.api.reasons import Reason
from lora_operator.core.rollout.requests import VERBS
from lora_operator.core.rollout.status import Phase

CLIENT = Path(__file__).parents[2] / "client"


def test_every_shared_constant_has_the_operators_value() -> None:
    shared = set(names.__all__) & set(operator_names.__all__) - {"FIELD_MANAGER"}
    assert shared == {"GROUP", "LABEL_ADAPTER", "LABEL_DEPLOYMENT", "LABEL_REVISION"}
    assert {name: getattr(names, name) for name in shared} == {name: getattr(operator_names, name) for name in shared}


def test_the_client_owns_its_fields_under_a_name_of_its_own() -> None:
    assert names.FIELD_MANAGER != operator_names.FIELD_MANAGER


def test_every_reason_that_the_client_concludes_from_is_one_of_the_operators() -> None:
    assert {str(reason) for reason in names.Reason} <= {str(reason) for reason in Reason}


def test_verbs_and_phases_are_the_operators() -> None:
    assert {str(verb) for verb in names.Verb} == set(VERBS)
    assert {str(phase) for phase in names.DeploymentPhase} == {str(phase) for phase in Phase}


def test_kinds_are_the_operators() -> None:
    for name in ("ADAPTER", "LORA_DEPLOYMENT", "CONTROLLER_REVISION", "JOB", "POD"):
        ours, theirs = getattr(names, name), getattr(kinds, name)
        assert (ours.group, ours.version, ours.plural, ours.kind) == (
            theirs.group,
            theirs.version,
            theirs.plural,
            theirs.kind,
        )


def test_a_request_names_the_revision_before_the_slash() -> None:
    patch = request_patch(names.Verb.ABORT, revision="abc", nonce="1")
    assert patch == {"metadata": {"annotations": {"loraops.dev/abort": "abc/1"}}}


def test_no_client_module_imports_the_operator() -> None:
    for path in CLIENT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            found = [module] + ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [])
            assert not [name for name in found if name.startswith("lora_operator")], path
