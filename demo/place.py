"""Where the demo happens: a devcluster of its own, or a cluster the user has.

Both end in the same state: namespace `finance` (Pod Security restricted), claim `models` holding base model and adapters, chart installed.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from demo.kubectl import Kubectl
from demo.tell import Story
from devcluster.cluster import Cluster
from devcluster.helm import helm_binary
from devcluster.programs import install_packages, wheel_binary

__all__ = ["DevclusterPlace", "ExistingPlace", "Place"]

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
BASE_NAME = "smollm2-135m-instruct"
NAMESPACE = "finance"
SYSTEM = "lora-system"
RELEASE = "lora-operator"
IMAGES = {"operator": ("lora-operator", "operator/Dockerfile"), "job": ("lora-job", "merge_job_image/Dockerfile")}
CACHES = Path("~/.cache/lora-operator").expanduser()
MODELS = CACHES / "models"


class Place(Protocol):
    """A cluster with everything the story needs."""

    kubectl: Kubectl
    gateway_url: str
    shell: str  # what to type to point a shell at the cluster
    base_model: Path  # the base model on this machine, for the comparison

    def prepare(self) -> None:
        """Makes what is missing."""

    def remove(self) -> None:
        """Removes what `prepare` made."""


class DevclusterPlace:
    """Everything on this machine; needs root, makes all the rest."""

    def __init__(self, *, story: Story) -> None:
        self._story = story
        self._cluster = Cluster(say=story.say)
        self.gateway_url = self._cluster.gateway_url
        self.shell = f"export KUBECONFIG={self._cluster.kubeconfig} PATH=$PWD/.venv/bin:$PATH"
        self.base_model = MODELS / BASE_NAME
        self.kubectl = Kubectl(binary=wheel_binary("kubectl"), kubeconfig=self._cluster.kubeconfig)

    def prepare(self) -> None:
        """Cluster, base model and images side by side; then files and chart."""
        with (
            self._story.step("A real Kubernetes on this machine; base model and images beside it"),
            ThreadPoolExecutor() as pool,
        ):
            install_packages(say=self._story.say)
            sides = [pool.submit(self._cluster.up), pool.submit(convert_base, self.base_model)]
            images = {part: self._build(name, dockerfile=file) for part, (name, file) in IMAGES.items()}
            for side in sides:
                side.result()
        with self._story.step("Images into the node"):
            for reference in images.values():
                self._cluster.images.load(reference, node=1)
        with self._story.step("Namespace, storage, models, operator"):
            make_namespace(self.kubectl)
            claim = self._cluster.create_claim(namespace=NAMESPACE, name="models")
            copy_into(claim, base=self.base_model)
            settings = json.dumps(router_settings(self.gateway_url))
            arguments = ["--kubeconfig", str(self._cluster.kubeconfig), "--set-json", f"settings={settings}"]
            install_chart(helm_arguments=arguments, images=images)

    def _build(self, name: str, *, dockerfile: str) -> str:
        return self._cluster.images.build(name=name, dockerfile=ROOT / dockerfile, context=ROOT)

    def remove(self) -> None:
        """The whole cluster; caches stay."""
        self._cluster.down()
        self._story.say(f"the cluster is gone; caches stay in {CACHES}, so that the next `make demo` starts faster")


class ExistingPlace:
    """A cluster the user has, with a default storage class and a Gateway `infra/public`; removing needs its context alone.

    The operator is not told where the router answers: what this machine calls it by (a forwarded port, say) need not lead there from a pod.
    """

    def __init__(
        self, *, context: str, story: Story, gateway_url: str = "", images: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.gateway_url = gateway_url
        self.shell = f"kubectl config use-context {context}; export PATH=$PWD/.venv/bin:$PATH"
        self.base_model = MODELS / BASE_NAME
        self.kubectl = Kubectl(binary=wheel_binary("kubectl"), context=context)
        self._context = context
        self._images = images
        self._story = story

    def prepare(self) -> None:
        """Namespace, a claim of the default storage class filled through a helper pod, chart."""
        with self._story.step("The base model"):
            convert_base(self.base_model)
        with self._story.step("Namespace, storage, models, operator"):
            make_namespace(self.kubectl)
            self.kubectl.apply(_claim())
            self._copy_through_pod()
            install_chart(helm_arguments=["--kube-context", self._context], images=self._images)

    def _copy_through_pod(self) -> None:
        """kubectl cp of base and adapters into the claim; the digest in the artifact's manifest proves what arrived."""
        self.kubectl.apply(_copy_pod(self._images["job"]))
        self.kubectl("wait", "--for=condition=Ready", "--timeout=180s", "-n", NAMESPACE, "pod/copy-models")
        for source, target in sources(self.base_model):
            self._story.say(f"copying {target}")
            self.kubectl("exec", "-n", NAMESPACE, "copy-models", "--", "mkdir", "-p", f"/models/{target}")
            self.kubectl("cp", f"{source}/.", f"{NAMESPACE}/copy-models:/models/{target}")
        self.kubectl("delete", "pod", "-n", NAMESPACE, "copy-models", "--wait=false")

    def remove(self) -> None:
        """The namespace with its resources and the release; the CRDs stay, as helm keeps them."""
        self.kubectl("delete", "lorad,lora", "--all", "-n", NAMESPACE, "--timeout=120s")
        self.kubectl("delete", "namespace", NAMESPACE)
        _helm("uninstall", RELEASE, "--namespace", SYSTEM, "--kube-context", self._context)
        self._story.say(f"namespace {NAMESPACE} and release {RELEASE} are gone; the two CRDs stay")


def convert_base(target: Path) -> None:
    """The base model of the examples as safetensors, once."""
    _run([sys.executable, str(EXAMPLES / "finance_lora" / "convert_base.py"), str(target)])


def sources(base: Path) -> list[tuple[Path, str]]:
    """What lies on the claim, by the paths that the manifests in examples/ name."""
    adapters = EXAMPLES / "finance_lora" / "adapters"
    return [
        (base, BASE_NAME),
        *((path, f"adapters/{path.name}") for path in sorted(adapters.iterdir()) if path.is_dir()),
    ]


def copy_into(claim: Path, *, base: Path) -> None:
    """Copies models into the claim's directory of a devcluster; a file of the same size is not copied again."""
    for source, target in sources(base):
        for path in sorted(source.rglob("*")):
            copy = claim / target / path.relative_to(source)
            if path.is_dir() or (copy.exists() and copy.stat().st_size == path.stat().st_size):
                continue
            copy.parent.mkdir(parents=True, exist_ok=True)
            partial = copy.with_name(f".{copy.name}.partial")
            shutil.copyfile(path, partial)
            partial.chmod(0o644)
            partial.rename(copy)


def router_settings(url: str) -> dict[str, Any]:
    """The operator's settings with the devcluster's router: a version is Ready once a request is answered (docs/decisions/0098)."""
    return {"routers": [{"gatewayClass": "traefik", "kind": "traefik", "url": url}]}


def make_namespace(kubectl: Kubectl) -> None:
    """Pod Security `restricted`: everything the operator starts must fit it."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}})


def install_chart(*, helm_arguments: list[str], images: Mapping[str, str]) -> None:
    """helm upgrade --install of the chart, waiting until the operator is ready."""
    values = []
    for part, reference in images.items():
        repository, _, tag = reference.rpartition(":")
        values += ["--set", f"image.{part}.repository={repository}", "--set", f"image.{part}.tag={tag}"]
    _helm(
        "upgrade", "--install", "--take-ownership", RELEASE, str(ROOT / "charts" / "lora-operator"),
        "--namespace", SYSTEM, "--create-namespace",
        "--wait", "--timeout", "180s", *values, *helm_arguments,
    )  # fmt: skip


def _claim() -> dict[str, Any]:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}
    meta = {"name": "models", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec}


def _copy_pod(image: str) -> dict[str, Any]:
    user = {"runAsNonRoot": True, "runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    container = {
        "name": "copy",
        "image": image,
        "command": ["sleep", "3600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "models", "mountPath": "/models"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "copy-models", "namespace": NAMESPACE},
        "spec": {
            "automountServiceAccountToken": False,
            "securityContext": {**user, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [container],
            "volumes": [{"name": "models", "persistentVolumeClaim": {"claimName": "models"}}],
        },
    }


def _helm(*arguments: str) -> None:
    _run([str(helm_binary()), *arguments])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-3:]
        raise OSError(f"{Path(command[0]).name} {' '.join(command[1:3])}: {' '.join(last)}")
