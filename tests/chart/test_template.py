"""What the chart renders: rights by scope, settings that the operator understands, refusals in words."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from lora_operator.core.build.profile import SHIPPED_PROFILES
from lora_operator.settings import parse_settings
from tests.chart.conftest import CHART, ROOT, Helm

NAMESPACED = ("--set", "scope=namespaced", "--set", "watchNamespaces={trading,research}")
EVERYTHING = tuple(
    word
    for name in (
        "podMonitor", "serviceMonitor", "prometheusRule", "dashboard", "networkPolicy", "admissionPolicy", "metricsService",
    )
    for word in ("--set", f"{name}.enabled=true")
)  # fmt: skip
WRITES = {"create", "update", "patch", "delete"}


def render(helm: Helm, *arguments: str) -> list[dict[str, Any]]:
    text = helm("template", "lora-operator", str(CHART), "--namespace", "lora-system", *arguments)
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [manifest for manifest in manifests if manifest["kind"] == kind]


def granted(manifests: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    """(resource, verb, kind of role) of every rule."""
    for role in (*of_kind(manifests, "ClusterRole"), *of_kind(manifests, "Role")):
        for rule in role["rules"]:
            for resource in rule["resources"]:
                for verb in rule["verbs"]:
                    yield resource, verb, role["kind"]


@pytest.mark.parametrize("arguments", [(), NAMESPACED, EVERYTHING], ids=["defaults", "namespaced", "everything on"])
def test_helm_lint_finds_nothing(helm: Helm, arguments: tuple[str, ...]) -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", str(CHART), *arguments)


def test_cluster_scope_has_one_cluster_role_and_no_role_but_that_of_the_lease(helm: Helm) -> None:
    manifests = render(helm)
    assert [role["metadata"]["name"] for role in of_kind(manifests, "ClusterRole")] == ["lora-operator"]
    assert [role["metadata"]["name"] for role in of_kind(manifests, "Role")] == ["lora-operator-lease"]
    assert "--namespaces=all" in operator(manifests)["args"]


def test_namespaced_scope_has_no_cluster_role_and_a_role_in_each_namespace(helm: Helm) -> None:
    manifests = render(helm, *NAMESPACED)
    assert of_kind(manifests, "ClusterRole") == of_kind(manifests, "ClusterRoleBinding") == []
    places = {role["metadata"]["namespace"] for role in of_kind(manifests, "Role")}
    assert places == {"lora-system", "trading", "research"}
    assert "--namespaces=trading,research" in operator(manifests)["args"]
    assert not [resource for resource, _, _ in granted(manifests) if resource == "nodes"]


def test_gateways_of_other_namespaces_can_be_read_when_they_are_named(helm: Helm) -> None:
    manifests = render(helm, *NAMESPACED, "--set", "gatewayNamespaces={infra}")
    roles = [role for role in of_kind(manifests, "Role") if role["metadata"]["namespace"] == "infra"]
    assert [rule["resources"] for role in roles for rule in role["rules"]] == [["gateways"]]


def test_pods_of_a_router_in_another_namespace_can_be_listed(helm: Helm) -> None:
    selector = {"namespace": "infra", "matchLabels": {"app": "traefik"}, "port": 9100}
    routers = [{"gatewayClass": "traefik", "kind": "traefik", "podSelector": selector}]
    manifests = render(helm, *NAMESPACED, "--set-json", f"settings.routers={json.dumps(routers)}")
    roles = [role for role in of_kind(manifests, "Role") if role["metadata"]["namespace"] == "infra"]
    assert [role["rules"] for role in roles] == [[{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]]
    bound = [
        one["roleRef"]["name"] for one in of_kind(manifests, "RoleBinding") if one["metadata"]["namespace"] == "infra"
    ]
    assert bound == [role["metadata"]["name"] for role in roles]


def test_no_right_is_a_wildcard_and_no_secret_can_be_read(helm: Helm) -> None:
    for arguments in ((), NAMESPACED):
        rights = set(granted(render(helm, *arguments)))
        assert not [right for right in rights if "*" in right]
        assert not [resource for resource, _, _ in rights if resource.startswith("secrets")]


def test_the_operator_cannot_write_anything_of_the_users_but_status_and_finalizers(helm: Helm) -> None:
    """It can patch the objects, because a finalizer is metadata; it can neither create nor delete them."""
    rights = set(granted(render(helm)))
    of_ours = {(resource, verb) for resource, verb, _ in rights if resource.startswith("lora") and verb in WRITES}
    assert of_ours == {
        ("loraadapters", "patch"),
        ("loradeployments", "patch"),
        ("loraadapters/status", "patch"),
        ("loradeployments/status", "patch"),
        ("loraadapters/finalizers", "update"),
        ("loradeployments/finalizers", "update"),
    }
    users = {"pods", "persistentvolumeclaims", "nodes", "gateways", "endpointslices"}
    assert not {resource for resource, verb, _ in rights if resource in users and verb in {"create", "delete"}}
    assert {verb for resource, verb, _ in rights if resource == "configmaps"} == {"get", "create", "patch"}, (
        "for `<name>-analysis`; an object of another owner is never written (test_analysis.py)"
    )


def test_the_schema_knows_every_key_of_a_profile() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    known = set(schema["definitions"]["profile"]["properties"])
    assert set().union(*SHIPPED_PROFILES.values()) - known == set()


def operator(manifests: list[dict[str, Any]]) -> dict[str, Any]:
    pods = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    return dict(pods["containers"][0])


def test_the_pod_is_restricted_and_says_when_it_is_well(helm: Helm) -> None:
    manifests = render(helm)
    pod = of_kind(manifests, "Deployment")[0]["spec"]["template"]["spec"]
    container = operator(manifests)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
    }  # fmt: skip
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ((), r"localhost/lora-operator:\d+\.\d+\.\d+"),
        (("--set", "image.operator.tag=1.2"), "localhost/lora-operator:1.2"),
        (
            ("--set", "image.operator.tag=1.2", "--set", "image.operator.digest=sha256:" + "a" * 64),
            "localhost/lora-operator@sha256:a{64}",
        ),
    ],
    ids=["the chart's version when nothing is said", "a tag", "a digest before a tag"],
)
def test_the_image_is(helm: Helm, values: tuple[str, ...], image: str) -> None:
    container = operator(render(helm, *values))
    assert re.fullmatch(image, container["image"])
    assert {"name": "LORA_OPERATOR_IMAGE", "value": container["image"]} in container["env"]


def test_crds_are_those_of_the_repository_and_stay_when_the_release_goes(helm: Helm) -> None:
    text = helm("template", "x", str(CHART))
    for file in sorted((ROOT / "crds").glob("*.yaml")):
        assert file.read_text().strip() in text
    for crd in of_kind(render(helm), "CustomResourceDefinition"):
        assert crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_crds_are_left_out_on_request(helm: Helm) -> None:
    assert of_kind(render(helm, "--set", "crds.install=false"), "CustomResourceDefinition") == []


def documented_settings() -> dict[str, Any]:
    """The commented block above `settings:` in values.yaml, read as YAML."""
    text = (CHART / "values.yaml").read_text()
    block = text[text.index("# settings.yaml of the operator") : text.index("\nsettings: {}")]
    lines = [line.removeprefix("#   ") for line in block.splitlines()[1:]]
    return dict(yaml.safe_load("\n".join(lines)))


def test_the_settings_that_values_yaml_documents_are_those_the_operator_knows(helm: Helm) -> None:
    """Each key it names passes the values' schema and the operator's parser; what it calls the default is the default."""
    settings = documented_settings()
    manifests = render(helm, "--set-json", f"settings={json.dumps(settings)}")
    stored = yaml.safe_load(of_kind(manifests, "ConfigMap")[0]["data"]["settings.yaml"])
    assert stored == settings
    read = parse_settings(stored, operator_image="o", job_image="j", image_pull_policy="IfNotPresent")
    built_in = parse_settings({}, operator_image="o", job_image="j", image_pull_policy="IfNotPresent")
    assert (read.merge, read.rtx4070, read.validation, read.gates, read.deployment, read.monitoring) == (
        built_in.merge, built_in.rtx4070, built_in.validation, built_in.gates, built_in.deployment, built_in.monitoring,
    )  # fmt: skip
    assert (read.pod_security, read.fetch) == (built_in.pod_security, built_in.fetch)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"replicas": 0}, "at '/replicas': minimum: got 0, want 1"),
        ({"scope": "namespace"}, "at '/scope': value must be one of 'cluster', 'namespaced'"),
        ({"image": {"operator": {"tagg": "1"}}}, "at '/image/operator': additional properties 'tagg' not allowed"),
        ({"image": {"operator": {"digest": "abc"}}}, "at '/image/operator/digest'"),
        ({"settings": {"quality_gate": {}}}, "at '/settings': additional properties 'quality_gate' not allowed"),
        (
            {"settings": {"quality_gates": {"minimum_safety_score": 95}}},
            "at '/settings/quality_gates/minimum_safety_score': maximum: got 95, want 1",
        ),
        (
            {"settings": {"routers": [{"kind": "haproxy"}]}},
            "at '/settings/routers/0/kind': value must be one of 'traefik', 'envoy-gateway', 'ingress-nginx'",
        ),
        (
            {"settings": {"profiles": {"vllm": {"imge": "x"}}}},
            "at '/settings/profiles/vllm': additional properties 'imge' not allowed",
        ),
        ({"logLevel": "debug"}, "at '/logLevel': value must be one of 'DEBUG', 'INFO', 'WARNING', 'ERROR'"),
        (
            {"scope": "namespaced"},
            "watchNamespaces: scope namespaced needs at least one namespace; list them, or use scope cluster",
        ),
    ],
    ids=[
        "no replica",
        "a scope that does not exist",
        "a misspelt member of image",
        "a digest that is none",
        "a misspelt section of the settings",
        "a percentage for a share",
        "an unknown router",
        "a misspelt member of a profile",
        "a log level in lower case",
        "no namespace to watch",
    ],
)  # fmt: skip
def test_wrong_values_are_refused_by_their_path(helm: Helm, values: dict[str, Any], says: str) -> None:
    arguments = [word for key, value in values.items() for word in ("--set-json", f"{key}={json.dumps(value)}")]
    assert says in helm.fails("template", "x", str(CHART), *arguments)


def test_two_replicas_are_not_drained_at_once(helm: Helm) -> None:
    assert of_kind(render(helm), "PodDisruptionBudget") == []
    budget = of_kind(render(helm, "--set", "replicas=2"), "PodDisruptionBudget")[0]
    assert budget["spec"]["maxUnavailable"] == 1


def test_everything_optional_is_off_and_can_be_switched_on(helm: Helm) -> None:
    kinds = {"PodMonitor", "ServiceMonitor", "PrometheusRule", "NetworkPolicy", "ValidatingAdmissionPolicy"}
    assert not kinds & {manifest["kind"] for manifest in render(helm)}
    assert kinds <= {manifest["kind"] for manifest in render(helm, *EVERYTHING)}


def test_alerts_take_their_thresholds_from_the_settings(helm: Helm) -> None:
    on = ("--set", "prometheusRule.enabled=true")
    usual = json.dumps(of_kind(render(helm, *on), "PrometheusRule"))
    assert "> 500" in usual
    assert "> 2" in usual
    thresholds = ("--set", "settings.monitoring.alert_thresholds.response_time_ms=750")
    own = json.dumps(of_kind(render(helm, *on, *thresholds), "PrometheusRule"))
    assert "> 750" in own
    assert "> 2" in own


def test_dashboard_and_alerts_name_only_metrics_that_the_operator_has(helm: Helm) -> None:
    metrics = (ROOT / "operator" / "lora_operator" / "runtime" / "metrics.py").read_text()
    text = json.dumps(render(helm, *EVERYTHING))
    for name in set(re.findall(r"lora_operator_[a-z_]+", text)):
        stem = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert f'"{stem}"' in metrics, name
    dashboards = [
        m for m in of_kind(render(helm, *EVERYTHING), "ConfigMap") if m["metadata"]["name"].endswith("dashboard")
    ]
    assert json.loads(dashboards[0]["data"]["lora-operator.json"])["title"] == "lora-operator"


def test_a_change_of_the_settings_restarts_the_operator(helm: Helm) -> None:
    def checksum(*arguments: str) -> str:
        template = of_kind(render(helm, *arguments), "Deployment")[0]["spec"]["template"]
        return str(template["metadata"]["annotations"]["checksum/settings"])

    assert checksum() == checksum("--set", "replicas=2")
    assert checksum() != checksum("--set-json", "settings.quality_gates.minimum_safety_score=0.9")
