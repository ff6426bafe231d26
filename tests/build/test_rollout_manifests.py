"""Golden manifests of a revision. After a wanted change run once with GOLDEN=write and read the difference."""

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from lora_operator.api.deployment import GatewayTraffic, IngressTraffic, parse_deployment
from lora_operator.api.strategy import Match
from lora_operator.core.build.budget import build_disruption_budget
from lora_operator.core.build.deployment import build_deployment
from lora_operator.core.build.fence import build_fence, fence_host
from lora_operator.core.build.forced import Forced
from lora_operator.core.build.httproute import build_http_route, header_match
from lora_operator.core.build.ingress import build_ingresses
from lora_operator.core.build.owner import Owner
from lora_operator.core.build.pod_template import Artifact, PodSettings, build_pod_template
from lora_operator.core.build.profile import parse_profiles
from lora_operator.core.build.revision import Revision, build_controller_revision, parse_controller_revision
from lora_operator.core.build.service import build_public_service, build_revision_service, build_shared_service

GOLDEN = Path(__file__).parent / "golden"
OWNER = Owner(namespace="shop", name="fin", uid="uid-1")
PROFILES = parse_profiles({}, job_image="localhost/job:1")
ARTIFACT = Artifact(
    claim="models", path="artifacts/shop/v1/abc", digest="sha256:1", quantization="None", weights_bytes=270_000_000
)
INGRESS_TRAFFIC = IngressTraffic(class_name="nginx", host="fin.example.com", path="/")
TRAFFIC = GatewayTraffic(parent_refs=({"name": "public", "namespace": "infra"},), hostnames=("fin.example.com",))


def template(*, max_model_len: int | None = None, quantization: str = "None", **runtime: Any) -> dict[str, Any]:
    raw = {"profile": "transformers", "servedModelName": "fin", **runtime}
    resource = {
        "metadata": {"name": "fin", "namespace": "shop", "uid": "uid-1"},
        "spec": {"adapterRef": {"name": "v1"}, "runtime": raw, "traffic": {"service": {}}},
    }
    parsed = parse_deployment(resource).runtime
    return build_pod_template(
        OWNER,
        revision="0a1b2c3d",
        runtime=parsed,
        profile=PROFILES[parsed.profile],
        artifact=Artifact(**{**ARTIFACT.__dict__, "quantization": quantization}),
        settings=PodSettings(
            operator_image="localhost/operator:1", operator_pull_policy="IfNotPresent", run_as_user=65532
        ),
        max_model_len=max_model_len,
    )


def revision(pod: dict[str, Any]) -> Revision:
    return Revision(
        revision="0a1b2c3d",
        number=3,
        adapter="v1",
        artifact_digest="sha256:1",
        served_model_name="fin",
        profile="transformers",
        profile_digest="p",
        port=8000,
        routes=PROFILES["transformers"].routes,
        probes=({"prompt": "q", "answer": "a", "margin": 1.5},),
        gpu_resource="nvidia.com/gpu",
        gpus_per_pod=1,
        drain_seconds=60,
        template=pod,
    )


CASES = {
    "deployment-transformers": lambda: build_deployment(OWNER, revision(template()), replicas=2),
    "deployment-vllm": lambda: build_deployment(
        OWNER,
        revision(
            template(
                profile="vllm",
                image="vllm/vllm-openai@sha256:1",
                args=["--enable-prefix-caching"],
                quantization="BnbNF4",
                max_model_len=4096,
                resources={"limits": {"nvidia.com/gpu": 1}},
                nodeSelector={"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-4070"},
            )
        ),
        replicas=1,
    ),
    "deployment-local-copy": lambda: build_deployment(
        OWNER, revision(template(localCopy={"sizeLimit": "20Gi"})), replicas=1
    ),
    "service-revision": lambda: build_revision_service(OWNER, revision="0a1b2c3d"),
    "service-public": lambda: build_public_service(OWNER, revision="0a1b2c3d"),
    "service-shared": lambda: build_shared_service(OWNER),
    "httproute": lambda: build_http_route(
        OWNER, TRAFFIC, routes=PROFILES["vllm"].routes, weights={"0a1b2c3d": 95, "ffffffff": 5}
    ),
    "ingress": lambda: list(
        build_ingresses(OWNER, INGRESS_TRAFFIC, routes=PROFILES["vllm"].routes, weights={"0a1b2c3d": 95, "ffffffff": 5})
    ),
    "httproute-forced": lambda: build_http_route(
        OWNER,
        TRAFFIC,
        routes=PROFILES["vllm"].routes,
        weights={"0a1b2c3d": 70, "ffffffff": 30},
        forced=Forced(revision="ffffffff", match=Match(kind="cookie", name="variant", value="b.1")),
    ),
    "httproute-fenced": lambda: build_http_route(
        OWNER, TRAFFIC, routes=PROFILES["vllm"].routes, weights={"0a1b2c3d": 95, "ffffffff": 5}, fenced=True
    ),
    "ingress-forced": lambda: list(
        build_ingresses(
            OWNER,
            INGRESS_TRAFFIC,
            routes=PROFILES["vllm"].routes,
            weights={"0a1b2c3d": 100},
            forced=Forced(revision="ffffffff", match=Match(kind="header", name="x-variant", value="b")),
        )
    ),
    "ingress-fence": lambda: build_fence(
        OWNER,
        class_name="nginx",
        routes=PROFILES["vllm"].routes,
        weights={"0a1b2c3d": 95, "ffffffff": 5},
        forced=None,
    ),
    "budget": lambda: build_disruption_budget(OWNER, revision="0a1b2c3d"),
    "controllerrevision": lambda: build_controller_revision(OWNER, revision({"spec": {}})),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    path = GOLDEN / f"{name}.json"
    text = json.dumps(CASES[name](), indent=1, sort_keys=True) + "\n"
    if os.environ.get("GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text()


def pod_spec(**runtime: Any) -> dict[str, Any]:
    spec: dict[str, Any] = template(**runtime)["spec"]
    return spec


def test_a_pod_is_restricted_and_has_no_token() -> None:
    spec = pod_spec()
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in [*spec["initContainers"], *spec["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


@pytest.mark.parametrize("copied", [False, True], ids=["served from the claim", "served from a copy"])
def test_the_runtime_never_may_write_the_model(copied: bool) -> None:
    spec = pod_spec(**({"localCopy": {"sizeLimit": "1Gi"}} if copied else {}))
    mount = next(m for m in spec["containers"][0]["volumeMounts"] if m["mountPath"] == "/models/fin")
    assert mount["readOnly"] is True
    assert spec["initContainers"][-1]["command"] == ["lora-job", "verify", "/models/fin", "--digest", "sha256:1"]


@pytest.mark.parametrize("drain", [0, 15, 60, 600])
def test_the_grace_period_covers_sleep_shutdown_and_the_longest_stream(drain: int) -> None:
    spec = pod_spec(drainSeconds=drain)
    sleep = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] > sleep + max(drain, PROFILES["transformers"].shutdown_seconds) + 5


def test_the_offline_switch_cannot_be_overridden_but_other_variables_can() -> None:
    env = pod_spec(env=[{"name": "HF_HUB_OFFLINE", "value": "0"}, {"name": "HOME", "value": "/elsewhere"}])[
        "containers"
    ][0]["env"]
    found = {entry["name"]: entry["value"] for entry in env}
    assert (found["HF_HUB_OFFLINE"], found["HOME"]) == ("1", "/elsewhere")
    assert len(found) == len(env)


@pytest.mark.parametrize(
    ("said", "requests"),
    [
        pytest.param({}, {"cpu": "250m"}, id="a silent user gets the profile's request"),
        pytest.param({"limits": {"nvidia.com/gpu": 1}}, {"cpu": "250m"}, id="a GPU says nothing of processors"),
        pytest.param({"requests": {"cpu": "2"}}, {"cpu": "2"}, id="the user's request wins"),
        pytest.param({"limits": {"cpu": "1"}}, None, id="a limit is a request already"),
    ],
)
def test_requests_of_the_runtime(said: dict[str, Any], requests: dict[str, str] | None) -> None:
    assert pod_spec(resources=said)["containers"][0]["resources"].get("requests") == requests


def test_a_larger_model_gets_more_time_to_start() -> None:
    small = template()["spec"]["containers"][0]["startupProbe"]
    assert small["failureThreshold"] * small["periodSeconds"] >= PROFILES["transformers"].startup_seconds


def test_user_labels_never_override_the_selector() -> None:
    user = {"loraops.dev/revision": "evil", "loraops.dev/in-service": "true", "team": "x"}
    labels = template(podLabels=user)["metadata"]["labels"]
    assert (labels["loraops.dev/revision"], labels["team"]) == ("0a1b2c3d", "x")
    assert "loraops.dev/in-service" not in labels, "a pod joins the plain Service of a canary by the operator alone"


def test_a_stored_revision_reads_back_as_it_was() -> None:
    wanted = revision(template())
    assert parse_controller_revision(build_controller_revision(OWNER, wanted)) == wanted


def test_a_revision_of_an_unknown_schema_is_not_guessed_at() -> None:
    assert parse_controller_revision({"revision": 1, "data": {"schema": 99}}) is None


def test_only_the_public_routes_are_exposed() -> None:
    route = build_http_route(OWNER, TRAFFIC, routes=PROFILES["transformers"].routes, weights={"0a1b2c3d": 100})
    matches = [rule["matches"][0]["path"] for rule in route["spec"]["rules"]]
    assert {match["type"] for match in matches} == {"Exact"}
    assert sorted(match["value"] for match in matches) == [
        "/api/v1/health",
        "/api/v1/inference",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/models",
    ]


def test_every_distribution_of_requests_has_a_fence_of_its_own() -> None:
    header = Forced(revision="b", match=Match(kind="header", name="x", value="1"))
    cookie = Forced(revision="b", match=Match(kind="cookie", name="x", value="1"))
    said: list[tuple[dict[str, int], Forced | None]] = [
        ({"a": 100}, None),
        ({"a": 95, "b": 5}, None),
        ({"a": 5, "b": 95}, None),
        ({"b": 100}, None),
        ({"a": 100}, header),
        ({"a": 100}, cookie),
    ]
    hosts = {fence_host(OWNER, weights=weights, forced=forced) for weights, forced in said}
    assert len(hosts) == len(said)
    assert all(host.endswith(".fin.shop.invalid") and len(host) <= 253 for host in hosts)


@pytest.mark.parametrize(
    ("value", "cookie", "matches"),
    [
        pytest.param("b", "variant=b", True, id="alone"),
        pytest.param("b", "lang=zh; variant=b", True, id="the last of two"),
        pytest.param("b", "variant=b; lang=zh", True, id="the first of two"),
        pytest.param("b", "lang=zh;variant=b;x=y", True, id="in the middle, without spaces"),
        pytest.param("b", "variant=bb", False, id="a longer value"),
        pytest.param("b", "myvariant=b", False, id="a longer name"),
        pytest.param("b", "lang=variant=b", False, id="inside another cookie's value"),
        pytest.param("b.1", "variant=b.1", True, id="a dot"),
        pytest.param("b.1", "variant=bx1", False, id="a dot is not any character"),
        pytest.param("(a|b)[1]+$", "variant=(a|b)[1]+$", True, id="everything that an expression could mean"),
    ],
)
def test_the_expression_for_a_cookie(value: str, cookie: str, matches: bool) -> None:
    said = header_match(Match(kind="cookie", name="variant", value=value))
    assert (said["name"], said["type"]) == ("Cookie", "RegularExpression")
    assert bool(re.search(said["value"], cookie)) is matches
    assert bool(re.fullmatch(said["value"], cookie)) is matches, "implementations that match the whole value"
