"""workflow and cancel: which objects are stored, how it is followed, and with which code it ends."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from lora_client.errors import Invalid
from lora_client.names import ADAPTER, LABEL_CANCELLED, LABEL_WORKFLOW, LORA_DEPLOYMENT
from loractl.commands.workflow import read_manifests
from loractl.recipe import Asked, Mode, Quantization, Rollout, Strategy, build_request
from tests.client.loractl.conftest import Terminal, ready_adapter, ready_condition, stable_deployment, version
from tests.client.loractl.whole_cluster import WholeCluster

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[3] / "examples"
BASE, LORA = ("--base", "pvc://models/base"), ("--adapter", "pvc://models/adapters/v2=0.5")


def finishing(cluster: WholeCluster, **deployed: Any) -> None:
    """The operator: every stored object is at once what `deployed` says, or served."""

    def react(stored: Json) -> None:
        name = stored["metadata"]["name"]
        if stored.get("status", {}).get("conditions"):
            return
        if stored["kind"] == ADAPTER.kind:
            cluster.set_status(ADAPTER, name, {**ready_adapter(name)["status"], "observedGeneration": 1})
        else:
            ref = stored["spec"]["adapterRef"]["name"]
            cluster.set_status(LORA_DEPLOYMENT, name, deployed or stable_deployment(name, ref=ref)["status"])

    cluster.react = react


def test_a_workflow_stores_both_objects_and_ends_when_it_serves(loractl: Terminal, cluster: WholeCluster) -> None:
    finishing(cluster)
    result = loractl("workflow", "fin-v2", *BASE, *LORA, "--deployment", "fin-assistant", "--validation-mode", "basic")
    assert result.exit_code == 0, result.stderr
    stored = cluster.peek(ADAPTER, "fin-v2")
    assert stored["spec"]["adapters"][0] == {
        "name": "main",
        "source": {"pvc": {"claimName": "models", "path": "adapters/v2"}},
        "weight": 0.5,
    }
    assert stored["spec"]["validation"] == {"mode": "Basic"}
    served = cluster.peek(LORA_DEPLOYMENT, "fin-assistant")
    assert served["spec"]["adapterRef"] == {"name": "fin-v2"}
    assert served["metadata"]["labels"][LABEL_WORKFLOW] == stored["metadata"]["labels"][LABEL_WORKFLOW]
    assert "LoRADeployment fin-assistant is Ready" in result.stdout
    assert f"workflow {stored['metadata']['labels'][LABEL_WORKFLOW]}" in result.stderr


def test_a_workflow_whose_rollout_is_given_up_is_3(loractl: Terminal, cluster: WholeCluster) -> None:
    given_up = ready_condition(reason="PodFailed", message="revision 8adf was given up", stalled=True)
    finishing(cluster, phase="Aborted", conditions=given_up, stable=version("61fd", ref="fin-v1", weight=100))
    result = loractl("workflow", "fin-v2", *BASE, *LORA)
    assert result.exit_code == 3
    assert "revision 8adf was given up" in result.stdout


def test_a_workflow_for_programs_ends_in_one_document(loractl: Terminal, cluster: WholeCluster) -> None:
    finishing(cluster)
    result = loractl("workflow", "fin-v2", *BASE, *LORA, "-o", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["status"] == "completed"


def test_without_waiting_the_way_back_is_told(loractl: Terminal, cluster: WholeCluster) -> None:
    identity = str(uuid4())
    result = loractl("workflow", "fin-v2", *BASE, *LORA, "--no-wait", "--workflow-id", identity, "-o", "name")
    assert result.stdout == f"{identity}\n"
    assert f"loractl status --workflow-id {identity} --watch" in result.stderr


def test_build_and_validate_only_makes_no_deployment(loractl: Terminal, cluster: WholeCluster) -> None:
    finishing(cluster)
    assert loractl("workflow", "fin-v2", *BASE, *LORA, "--no-deploy").exit_code == 0
    assert {key[0] for key in cluster.objects} == {ADAPTER.plural}


def test_a_dry_run_stores_nothing_and_shows_manifests(loractl: Terminal, cluster: WholeCluster) -> None:
    result = loractl("workflow", "fin-v2", *BASE, *LORA, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert [one["kind"] for one in yaml.safe_load(result.stdout)["items"]] == ["LoRAAdapter", "LoRADeployment"]
    assert cluster.objects == {}


def test_the_examples_run_as_a_workflow(loractl: Terminal, cluster: WholeCluster) -> None:
    finishing(cluster)
    files = [word for name in ("deployment.yaml", "adapter-v1.yaml") for word in ("-f", str(EXAMPLES / name))]
    result = loractl("workflow", *files)
    assert result.exit_code == 0, result.stderr
    assert cluster.peek(ADAPTER, "finance-v1")["metadata"]["labels"][LABEL_WORKFLOW]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param("kind: ConfigMap", "found ConfigMap", id="another kind"),
        pytest.param("a: [", "not YAML", id="no YAML"),
        pytest.param("just words", "found str", id="a text"),
        pytest.param("", "found nothing", id="an empty file"),
        pytest.param("kind: LoRAAdapter\n---\nkind: LoRAAdapter", "expected one LoRAAdapter", id="two adapters"),
    ],
)
def test_manifests_that_are_none_are_refused(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(content)
    with pytest.raises(Invalid, match=words):
        read_manifests([path])


def test_a_manifest_of_another_namespace_is_not_moved(loractl: Terminal) -> None:
    result = loractl("workflow", "-n", "trading", "-f", str(EXAMPLES / "adapter-v1.yaml"))
    assert result.exit_code == 2
    assert "says namespace finance" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param((), "missing NAME and --base and --adapter", id="nothing"),
        pytest.param(("x", *BASE), "missing --adapter", id="no adapter"),
        pytest.param(
            ("x", *BASE, *LORA, "--gateway", "a/b/c", "--host", "h"),
            "expected [NAMESPACE/]NAME[:LISTENER]",
            id="a wrong gateway",
        ),
        pytest.param(
            ("x", *BASE, *LORA, "--gateway", "public"), "needs at least one --host", id="a gateway without a host"
        ),
        pytest.param(("x", *BASE, *LORA, "--host", "h"), "--host needs", id="a host without a router"),
        pytest.param(
            ("x", *BASE, *LORA, "--gateway", "g", "--ingress-class", "i", "--host", "h"),
            "exclude each other",
            id="two routers",
        ),
        pytest.param(("x", "--base", "pvc://models", *LORA), "expected pvc://CLAIM/PATH", id="a claim without a path"),
        pytest.param(("X!", *BASE, *LORA), "expected at most 45 characters", id="a bad name"),
        pytest.param(("x", *BASE, *LORA, "--workflow-id", "7"), "expected a UUID", id="a bad id"),
        pytest.param(
            ("x", *BASE, *LORA, "--rollout", "blue"), "blue-green", id="an unknown rollout names the known ones"
        ),
        pytest.param(("x", "-f", "y.yaml"), "leave out NAME", id="a name beside manifests"),
        pytest.param(("-f", "nowhere.yaml"), "nowhere.yaml: No such file", id="a manifest that is not there"),
    ],
)
def test_what_cannot_be_understood_is_told_and_nothing_is_stored(
    loractl: Terminal, cluster: WholeCluster, arguments: tuple[str, ...], words: str
) -> None:
    result = loractl("workflow", *arguments)
    assert result.exit_code == 2
    assert words in result.stderr
    assert cluster.objects == {}


def asked(**said: Any) -> Asked:
    nothing: Json = dict.fromkeys(
        ("merge_strategy", "quantization", "validation_mode", "min_score", "min_safety_score", "rollout", "replicas")
    )
    text = dict.fromkeys(("deployment", "image", "gateway", "ingress_class", "target_env"), "")
    least = {
        "name": "x",
        "base": "pvc://m/b",
        "adapters": ["pvc://m/a"],
        "store": "pvc://m/s",
        "deploy": True,
        "profile": "vllm",
        "gpus": 1,
        "hosts": [],
        "force_deploy": False,
    }
    return Asked(**{**nothing, **text, **least, **said})


@pytest.mark.parametrize(
    ("said", "part", "expected"),
    [
        pytest.param(
            {"gateway": "infra/public:web", "hosts": ["h"]},
            "traffic",
            {
                "gateway": {
                    "parentRefs": [{"name": "public", "namespace": "infra", "sectionName": "web"}],
                    "hostnames": ["h"],
                }
            },
            id="a gateway with its listener",
        ),
        pytest.param(
            {"ingress_class": "nginx", "hosts": ["h"]},
            "traffic",
            {"ingress": {"className": "nginx", "host": "h"}},
            id="an ingress",
        ),
        pytest.param({}, "traffic", {"service": {}}, id="a plain Service by default"),
        pytest.param({"gpus": 0}, "runtime", {"profile": "vllm"}, id="no GPU"),
        pytest.param(
            {"image": "i"},
            "runtime",
            {"profile": "vllm", "image": "i", "resources": {"limits": {"nvidia.com/gpu": 1}}},
            id="an image of one's own",
        ),
        pytest.param({"merge_strategy": Strategy.DARE_TIES}, "merge", {"strategy": "DARETIES"}, id="a merge strategy"),
        pytest.param({"quantization": Quantization.BNB_NF4}, "quantization", {"format": "BnbNF4"}, id="a quantization"),
        pytest.param({"rollout": Rollout.AB_TEST}, "strategy", {"type": "ABTest"}, id="a rollout"),
        pytest.param(
            {"validation_mode": Mode.COMPREHENSIVE, "min_score": 0.0},
            "validation",
            {"mode": "Comprehensive", "gates": {"minScore": 0.0}},
            id="a threshold of zero is said",
        ),
        pytest.param({}, "validation", None, id="what is not said is not written"),
        pytest.param({}, "force_deploy", None, id="no force unless said"),
    ],
)
def test_options_become_parts_of_the_spec(said: Json, part: str, expected: Any) -> None:
    assert getattr(build_request(asked(**said)), part) == expected


def test_several_adapters_have_names_and_weights() -> None:
    found = build_request(asked(adapters=["pvc://m/a", "pvc://m/b=2", "pvc://m/c=d"])).adapters
    assert [(one.name, one.source, one.weight) for one in found] == [
        ("main", "pvc://m/a", 1.0),
        ("adapter-2", "pvc://m/b", 2.0),
        ("adapter-3", "pvc://m/c=d", 1.0),
    ]


def running_workflow(cluster: WholeCluster, identity: str) -> None:
    raw = ready_adapter()
    raw["metadata"]["labels"] = {LABEL_WORKFLOW: identity}
    raw["status"] |= {"phase": "Merging", "conditions": ready_condition(reason="Merging")}
    cluster.put(ADAPTER, raw)


@pytest.mark.parametrize("by", ["id", "name"])
def test_cancel_stops_the_build(loractl: Terminal, cluster: WholeCluster, by: str) -> None:
    identity = str(uuid4())
    running_workflow(cluster, identity)
    result = loractl("cancel", identity if by == "id" else "fin-v2")
    assert result.stdout == f"workflow {identity} cancelled\n"
    stored = cluster.peek(ADAPTER, "fin-v2")
    assert stored["spec"]["suspend"] is True
    assert stored["metadata"]["labels"][LABEL_CANCELLED] == "true"


def test_what_belongs_to_no_workflow_cannot_be_cancelled(loractl: Terminal, cluster: WholeCluster) -> None:
    cluster.put(ADAPTER, ready_adapter())
    result = loractl("cancel", "fin-v2")
    assert result.exit_code == 2
    assert "belongs to no workflow" in result.stderr
