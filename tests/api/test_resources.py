"""What a user sees of the two kinds: defaults, columns, short names, scale, explanations, and a status that keeps what is written."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from devcluster.cluster import Cluster
from tests.api.conftest import CRDS, GROUP, ROOT, Api
from tests.api.objects import ADAPTER, DEPLOYMENT, DIGEST, changed

pytestmark = pytest.mark.api

SHORT = {"lora": "loraadapters", "lorad": "loradeployments"}
NOW = "2026-01-02T03:04:05Z"
READY = {
    "type": "Ready", "status": "True", "reason": "Ready", "message": "serves", "observedGeneration": 1, "lastTransitionTime": NOW,
}  # fmt: skip
ADAPTER_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Ready",
    "conditions": [READY],
    "lastRequests": {"retry": {"value": "n1", "time": NOW, "result": "Done"}},
    "buildHash": "0123456789abcdef",
    "artifact": {
        "digest": DIGEST,
        "uri": "pvc://models/artifacts/x",
        "sizeBytes": 0,
        "dtype": "bfloat16",
        "quantization": "None",
        "serving": {"weightsBytes": 0, "kvBytesPerToken": 0, "maxPositionEmbeddings": 0},
    },
    "merge": {"seconds": 3.4, "tensorsMerged": 210, "tensorsCopied": 0, "deltaRetentionMin": 0.97, "peakMemoryBytes": 0},
    "validation": {
        "id": "v-1",
        "mode": "Standard",
        "overallScore": 0.87,
        "grade": "good",
        "deployable": True,
        "dimensions": {"basic": {"score": 0.9, "ci95": [0.8, 1.0], "n": 20}},
        "gates": [
            {"name": "finite", "kind": "hard", "status": "PASS"},
            {"name": "score", "kind": "soft", "status": "PASS", "observed": 0.87, "threshold": 0.8},
        ],
        "recommendations": ["more_items"],
        "probes": [{"prompt": "台積電？", "answer": "2330", "margin": 1.5}],
        "reportUri": "pvc://models/artifacts/x/validation/v-1.json",
    },
    "jobs": {
        "merge": {
            "name": "j", "attempt": 1, "memory": 0, "nextAttemptAt": NOW, "key": "k", "template": "t", "result": "Succeeded",
            "reason": "Merged", "message": "m", "mergeMemory": 1, "validateMemory": 2,
        },
        "validate": {"name": "j", "attempt": 1},
    },
    "effective": {"validation": {"minScore": 0.8, "weights": {"basic": 0.4}}},
}  # fmt: skip
VERSION = {
    "revision": "01234567", "adapter": "fin-v1", "artifactDigest": DIGEST, "weight": 0, "targetWeight": 0, "readyReplicas": 0,
}  # fmt: skip
DEPLOYMENT_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "phase": "Stepping",
    "conditions": [READY],
    "replicas": 0,
    "selector": "loraops.dev/deployment=fin-assistant",
    "stable": VERSION | {"weight": 95},
    "candidate": VERSION | {"adapter": "fin-v2", "weight": 5},
    "previous": VERSION | {"keepUntil": NOW, "drainUntil": NOW},
    "heldRevision": "01234567",
    "step": {"index": 0, "of": 5, "sub": "Analyse", "startedAt": NOW, "deadline": NOW, "message": "m"},
    "pause": {"reason": "Requested", "since": NOW, "until": NOW},
    "abort": {"revision": "01234567", "reason": "Degraded", "message": "m", "evidence": {"errors": 3}},
    "lastRequests": {"rollback-to": {"value": "r/n", "time": NOW, "result": "Ignored"}},
    "analysis": {"verdict": "Pass", "metrics": [{"name": "errors", "e": 0.1}]},
    "downtime": {"seconds": 0, "since": NOW},
    "endpoints": ["http://fin.example.com/v1/chat/completions"],
    "history": [
        {
            "deploymentId": "a/b/c", "adapter": "fin-v1", "strategy": "Replace", "startTime": NOW, "completionTime": NOW,
            "durationSeconds": 0, "result": "Succeeded", "reason": "Promoted",
        }
    ],
    "effective": {"healthCheck": {"retries": 5}},
    "profileOutdated": False,
}  # fmt: skip


def named(manifest: Any) -> dict[str, Any]:
    return changed(manifest, {"metadata.name": f"r-{uuid4().hex[:8]}"})


def test_an_adapter_is_stored_with_exactly_these_defaults(api: Api) -> None:
    spec = api.create(ADAPTER).json()["spec"]
    job = {"timeoutSeconds": 7200}
    assert spec == {
        "base": ADAPTER["spec"]["base"],
        "adapters": [{**ADAPTER["spec"]["adapters"][0], "weight": 1.0}],
        "merge": {
            "strategy": "Linear", "dtype": "Auto", "scale": 1.0, "t": 0.5, "density": 0.5, "seed": 0, "allowUnverifiedBase": False,
        },
        "quantization": {"format": "None"},
        "validation": {"mode": "Standard", "gates": {"basis": "Point"}},
        "artifact": {**ADAPTER["spec"]["artifact"], "retain": "Keep"},
        "job": {"merge": job, "validate": job, "queueName": "", "serviceAccountName": ""},
        "suspend": False,
    }  # fmt: skip


def test_a_deployment_is_stored_with_exactly_these_defaults(api: Api) -> None:
    spec = api.create(DEPLOYMENT).json()["spec"]
    assert spec == {
        "adapterRef": {"name": "fin-v1"},
        "targetEnvironment": "staging",
        "replicas": 1,
        "runtime": {"profile": "transformers", "image": "", "args": [], "drainSeconds": 60},
        "strategy": {"type": "Replace"},
        "traffic": {"service": {}},
        "rollback": {"automatic": True, "historyLimit": 5},
        "progressDeadlineSeconds": 1800,
        "unschedulableSeconds": 60,
        "forceDeploy": False,
        "paused": False,
    }


def test_what_the_operators_settings_name_has_no_default_in_the_schema(api: Api) -> None:
    full = {
        "spec.strategy": {"type": "BlueGreen", "blueGreen": {}, "canary": {}},
        "spec.healthCheck": {},
        "spec.analysis": {},
    }
    spec = api.create(changed(DEPLOYMENT, full)).json()["spec"]
    assert spec["strategy"]["blueGreen"] == {"autoPromote": True, "keepPreviousSeconds": 600}
    assert spec["strategy"]["canary"] == {}
    assert spec["healthCheck"] == {}
    assert "intervalSeconds" not in spec["analysis"]


@pytest.mark.parametrize(
    "file",
    [*sorted((ROOT / "examples").glob("*.yaml")), Path(__file__).parent / "every_field.yaml"],
    ids=lambda path: path.name,
)
def test_an_example_is_accepted_and_no_field_of_it_is_unknown(api: Api, file: Path) -> None:
    for manifest in yaml.safe_load_all(file.read_text()):
        if manifest["apiVersion"].startswith("loraops.dev/"):
            answer = api.create(changed(manifest, {"metadata.namespace": api.namespace}))
            assert answer.status_code == 201, answer.text


def test_what_every_field_says_is_stored_as_it_is(api: Api) -> None:
    """A spec that says everything gets no default, so a second apply has nothing to change."""
    for manifest in yaml.safe_load_all((Path(__file__).parent / "every_field.yaml").read_text()):
        assert api.create(manifest).json()["spec"] == manifest["spec"]


def test_a_quantity_is_stored_as_it_was_written(api: Api) -> None:
    limits = {"nvidia.com/gpu": 1, "memory": "8Gi", "cpu": "1.50"}
    spec = api.create(changed(DEPLOYMENT, {"spec.runtime.resources.limits": limits})).json()["spec"]
    assert spec["runtime"]["resources"]["limits"] == limits


@pytest.mark.parametrize(
    ("manifest", "status"), [(ADAPTER, ADAPTER_STATUS), (DEPLOYMENT, DEPLOYMENT_STATUS)], ids=["LoRAAdapter", "LoRADeployment"]
)  # fmt: skip
def test_a_status_is_kept_whole_zeros_included(api: Api, manifest: Any, status: dict[str, Any]) -> None:
    mine = named(manifest)
    assert api.create(mine, keep=True).status_code == 201
    assert api.write_status(mine, status)["status"] == status


def test_an_update_of_the_spec_cannot_touch_the_status(api: Api) -> None:
    mine = named(ADAPTER)
    assert api.create({**mine, "status": {"phase": "Ready"}}, keep=True).json().get("status") is None


def test_kubectl_get_shows_what_matters_of_an_adapter(api: Api) -> None:
    mine = named(changed(ADAPTER, {"spec.version": "2.1.0"}))
    api.create(mine, keep=True)
    assert _row(api, mine, ADAPTER_STATUS) == {
        "Ready": "True", "Phase": "Ready", "Score": 0.87, "Grade": "good", "Base": "base", "Version": "2.1.0",
        "Digest": DIGEST, "Message": "serves",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ({"huggingFace": {"repo": "owner/base", "revision": "main", "secretRef": {"name": "token"}}}, "owner/base"),
        ({"s3": {"bucket": "models", "prefix": "bases/a", "secretRef": {"name": "token"}}}, "bases/a"),
        ({"oci": {"reference": "registry.example.com/base:1"}}, "registry.example.com/base:1"),
    ],
    ids=["a repository", "an S3 prefix", "an OCI reference"],
)
def test_the_base_column_shows_the_base_wherever_it_lies(api: Api, source: dict[str, Any], shown: str) -> None:
    mine = named(changed(ADAPTER, {"spec.base.source": source}))
    assert api.create(mine, keep=True).status_code == 201
    assert _row(api, mine, {})["Base"] == shown


def test_kubectl_get_shows_what_matters_of_a_deployment(api: Api) -> None:
    mine = named(DEPLOYMENT)
    api.create(mine, keep=True)
    assert _row(api, mine, DEPLOYMENT_STATUS) == {
        "Ready": "True", "Phase": "Stepping", "Strategy": "Replace", "Stable": "fin-v1", "Candidate": "fin-v2", "Weight": 5,
        "Message": "serves",
    }  # fmt: skip


def test_wide_columns_are_only_digest_and_message(api: Api) -> None:
    wide = {}
    for manifest in (ADAPTER, DEPLOYMENT):
        mine = named(manifest)
        api.create(mine, keep=True)
        columns = api.table(mine, {})["columnDefinitions"]
        wide[mine["kind"]] = [column["name"] for column in columns if column["priority"] == 1]
    assert wide == {"LoRAAdapter": ["Digest", "Message"], "LoRADeployment": ["Message"]}


def test_short_names_and_categories(api: Api) -> None:
    found = {item["name"]: item for item in api.get(GROUP)["resources"]}
    for short, plural in SHORT.items():
        assert found[plural]["shortNames"] == [short]
        assert found[plural]["categories"] == {"lora": ["lora", "ai"], "lorad": ["ai"]}[short]


@pytest.mark.parametrize(("short", "manifest"), [("lora", ADAPTER), ("lorad", DEPLOYMENT)])
def test_kubectl_takes_a_short_name_for_one_kind(
    api: Api, cluster: Cluster, tmp_path: Path, short: str, manifest: dict[str, Any]
) -> None:
    mine = named(manifest)
    name = mine["metadata"]["name"]
    api.create(mine, keep=True)
    fresh = f"--cache-dir={tmp_path}"  # kubectl remembers names and categories for hours
    found = cluster.kubectl("get", short, name, "-n", api.namespace, "-o", "name", fresh)
    assert found.split() == [f"{mine['kind'].lower()}.loraops.dev/{name}"]


def test_a_deployment_scales_as_autoscalers_do_it(api: Api, cluster: Cluster) -> None:
    mine = named(DEPLOYMENT)
    name = mine["metadata"]["name"]
    api.create(mine, keep=True)
    cluster.kubectl("scale", "lorad", name, "--replicas=3", "-n", api.namespace)
    wanted = {"replicas": 1, "selector": DEPLOYMENT_STATUS["selector"]}
    for _ in range(20):  # an operator that runs in this cluster may write its own status in between
        api.write_status(mine, wanted, keep=True)
        scale = api.get(f"{GROUP}/namespaces/{api.namespace}/loradeployments/{name}/scale")
        if scale["status"] == wanted:
            break
    assert scale["spec"] == {"replicas": 3}
    assert scale["status"] == wanted


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("lora.spec.merge.strategy", "weighted mean"),
        ("lorad.spec.runtime.drainSeconds", "longest stream"),
        ("lorad.spec.strategy.canary.steps.pause", "promote request"),
    ],
)
def test_kubectl_explain_explains(api: Api, cluster: Cluster, field: str, says: str) -> None:
    assert says in " ".join(cluster.kubectl("explain", field).split())


def test_lists_merge_under_server_side_apply(api: Api, cluster: Cluster) -> None:
    """Two owners of different variables do not take each other's away."""
    mine = changed(named(DEPLOYMENT), {"metadata.namespace": api.namespace})
    for manager, variable in (("one", "A"), ("two", "B")):
        wanted = changed(mine, {"spec.runtime.env": [{"name": variable, "value": "1"}]})
        cluster.kubectl("apply", "--server-side", f"--field-manager={manager}", "-f", "-", stdin=yaml.safe_dump(wanted))
    path = f"{GROUP}/namespaces/{api.namespace}/loradeployments/{mine['metadata']['name']}"
    assert [entry["name"] for entry in api.get(path)["spec"]["runtime"]["env"]] == ["A", "B"]


def test_every_field_is_described_and_every_string_list_and_map_has_a_limit() -> None:
    gaps = []
    for file in sorted(CRDS.glob("*.yaml")):
        crd = yaml.safe_load(file.read_text())
        root = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        for part in ("spec", "status"):
            gaps += _gaps(root["properties"][part], path=f"{crd['spec']['names']['kind']}.{part}", field=True)
    assert gaps == []


def _gaps(schema: dict[str, Any], *, path: str, field: bool) -> list[str]:
    gaps = []
    if field and not schema.get("description"):
        gaps.append(f"{path}: no description")
    bounded = "enum" in schema or schema.get("format") == "date-time"
    if schema.get("type") == "string" and "maxLength" not in schema and not bounded:
        gaps.append(f"{path}: no maxLength")
    if schema.get("type") == "array" and "maxItems" not in schema:
        gaps.append(f"{path}: no maxItems")
    if "additionalProperties" in schema:
        if "maxProperties" not in schema:
            gaps.append(f"{path}: no maxProperties")
        gaps += _gaps(schema["additionalProperties"], path=f"{path}.*", field=False)
    if "items" in schema:
        gaps += _gaps(schema["items"], path=f"{path}[]", field=False)
    for name, inner in schema.get("properties", {}).items():
        gaps += _gaps(inner, path=f"{path}.{name}", field=True)
    return gaps


def _row(api: Api, manifest: dict[str, Any], status: dict[str, Any]) -> dict[str, Any]:
    """Every column but NAME and AGE, by its header."""
    table = api.table(manifest, status)
    headers = [column["name"] for column in table["columnDefinitions"]]
    (cells,) = (row["cells"] for row in table["rows"])
    return {header: cell for header, cell in zip(headers, cells, strict=True) if header not in ("Name", "Age")}
