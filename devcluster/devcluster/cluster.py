"""One real Kubernetes on this machine: brought up step by step, each step idempotent, so that a crash is resumed by starting again.

packages ┐
programs ┼─► network ─► certificates, configs ─► etcd ─► apiserver ─► plane ─► containerd, kubelet ─► DNS, Gateway, GPUs ─► Ready
(wheels) ┘
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from devcluster import configs, objects
from devcluster.addresses import SLOTS, Instance
from devcluster.certificates import write_certificates
from devcluster.images import Images
from devcluster.mounts import remove_cgroups, unmount_below
from devcluster.network import enter, make_network, remove_network
from devcluster.pod_networks import remove_pod_networks
from devcluster.processes import Processes
from devcluster.programs import MissingPrerequisite, gateway_api_crds, install_packages, make_programs, wheel_binary

__all__ = ["Cluster", "NotReady", "default_home"]

Say = Callable[[str], None]
GPU_PRODUCT = "NVIDIA-GeForce-RTX-4070"
NETWORK_DEVICES = Path("/sys/class/net")
USERS = ("admin", "controller-manager", "scheduler", "proxy")


def default_home() -> Path:
    """Caches and instances of this machine; DEVCLUSTER_HOME overrides."""
    return Path(os.environ.get("DEVCLUSTER_HOME", "~/.cache/lora-operator/devcluster")).expanduser()


class NotReady(RuntimeError):
    """A part did not come up in time; the message carries its last words."""


class Cluster:
    """A named instance. Nothing is remembered in memory that is not also on disk."""

    def __init__(self, *, instance: str | None = None, say: Say = lambda _: None) -> None:
        home = default_home()
        name = instance or os.environ.get("DEVCLUSTER_INSTANCE", "lora")
        if not name.isalnum() or len(name) > 8:
            raise MissingPrerequisite(f"instance name {name!r}: use at most 8 letters and digits")
        self.instance = Instance(name=name, slot=_slot(home, name=name), home=home)
        self.processes = Processes(self.instance.directory)
        self.images = Images(instance=self.instance, say=say)
        self._say = say

    # -- what others need to know ---------------------------------------------------------------------------------

    @property
    def kubeconfig(self) -> Path:
        """Of the cluster's administrator."""
        return self.instance.directory / "etc" / "admin.kubeconfig"

    @property
    def gateway_url(self) -> str:
        """Where the Gateway `public` answers, from the host too."""
        return self.instance.gateway_url

    @property
    def audit_log(self) -> Path:
        """One JSON line per request the API server answered."""
        return self.instance.directory / "audit.log"

    @property
    def storage_dir(self) -> Path:
        """Directories of local PersistentVolumes lie here."""
        return self.instance.directory / "storage"

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Runs kubectl as administrator; raises NotReady with kubectl's own words."""
        command = [str(wheel_binary("kubectl")), "--kubeconfig", str(self.kubeconfig), *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise NotReady(f"kubectl {' '.join(arguments[:4])}: {done.stderr.strip()[-800:]}")
        return done.stdout

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Server-side apply of objects."""
        text = yaml.safe_dump_all(manifests)
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    # -- up ---------------------------------------------------------------------------------------------------------

    def up(self, *, nodes: int = 1, gpus: int = 4) -> None:
        """Everything, or what is missing of it."""
        if os.geteuid() != 0:
            raise MissingPrerequisite("devcluster makes network namespaces and mounts: run it as root")
        with self._locked():
            self._prepare_programs()
            self._step("network", lambda: make_network(self.instance, nodes=nodes))
            self._step("certificates and configuration", lambda: self._write_files(nodes=nodes))
            self._step("control plane", self._start_plane)
            for node in range(1, nodes + 1):
                self._step(f"node {node}", lambda node=node: self._start_node(node))  # type: ignore[misc]
            self._step("DNS, Gateway API, GPUs", lambda: self._furnish(nodes=nodes, gpus=gpus))
            self._step("ready", lambda: self._wait_ready(nodes=nodes))

    def _prepare_programs(self) -> None:
        with ThreadPoolExecutor(max_workers=2) as pool:
            steps = [
                pool.submit(self._step, "Debian packages", lambda: install_packages(say=self._say)),
                pool.submit(self._step, "Go programs", lambda: make_programs(self.instance.binaries, say=self._say)),
            ]
            for step in steps:
                step.result()

    def _step(self, title: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        work()
        self._say(f"{title}: {time.monotonic() - started:.1f} s")

    def _write_files(self, *, nodes: int) -> None:
        write_certificates(self.instance, nodes=nodes)
        etc = self.instance.directory / "etc"
        etc.mkdir(parents=True, exist_ok=True)
        self.storage_dir.mkdir(parents=True, exist_ok=True)
        for user in (*USERS, *(f"node-{node}" for node in range(1, nodes + 1))):
            _write(etc / f"{user}.kubeconfig", configs.kubeconfig(self.instance, user=user))
        (etc / "admin.kubeconfig").chmod(0o600)
        _write(etc / "audit-policy.yaml", configs.audit_policy())
        (etc / "Corefile").write_text(configs.corefile(self.instance))
        for node in range(1, nodes + 1):
            directory = self.instance.directory / f"node-{node}"
            (directory / "cni").mkdir(parents=True, exist_ok=True)
            (directory / "pod-logs").mkdir(exist_ok=True)
            pause = self.images.pause_name
            (directory / "containerd.toml").write_text(
                configs.containerd_config(self.instance, node=node, pause_image=pause)
            )
            _write(directory / "cni" / "10-devcluster.conflist", configs.cni_conflist(self.instance, node=node))
            _write(directory / "kubelet.yaml", configs.kubelet_config(self.instance, node=node))

    def _start_plane(self) -> None:
        commands = configs.command_lines(self.instance)
        for name in ("etcd", "apiserver"):
            self._start(name, commands[name])
        self._await("apiserver", self._api_ready, seconds=60)
        for name in ("controller-manager", "scheduler", "proxy"):
            self._start(name, commands[name])

    def _start_node(self, node: int) -> None:
        directory = self.instance.directory / f"node-{node}"
        containerd = f"containerd-{node}"
        self._start(containerd, ["/usr/bin/containerd", "--config", f"{directory}/containerd.toml"])
        self._await(containerd, lambda: self.images.answers(node=node), seconds=30)
        self.images.load_pause(node=node)
        kubelet = [
            str(self.instance.binaries / "kubebox"), "kubelet", f"--config={directory}/kubelet.yaml",
            f"--kubeconfig={self.instance.directory}/etc/node-{node}.kubeconfig", f"--root-dir={directory}/kubelet",
            f"--node-ip={self.instance.node_address(node)}", f"--hostname-override=node-{node}",
        ]  # fmt: skip
        if (
            node > 1
        ):  # a path below /var/lib ignores --root-dir, so each further kubelet sees a directory of its own there
            plugins = directory / "device-plugins"
            plugins.mkdir(exist_ok=True)
            Path("/var/lib/kubelet/device-plugins").mkdir(parents=True, exist_ok=True)
            bind = f'mount --bind {plugins} /var/lib/kubelet/device-plugins && exec "$@"'
            kubelet = ["unshare", "-m", "sh", "-c", bind, "sh", *kubelet]
        self._start(f"kubelet-{node}", kubelet)

    def _furnish(self, *, nodes: int, gpus: int) -> None:
        self.apply(*objects.dns(self.instance), *objects.rbac())
        self._start("coredns", configs.command_lines(self.instance)["coredns"])
        for crd in gateway_api_crds(self.instance.home):
            self.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(crd))
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        self.apply(*objects.traefik_account())
        self._start_traefik()
        self.apply(*objects.gateway())
        for node in range(1, nodes + 1):
            self._await(f"kubelet-{node}", lambda node=node: self._node_exists(node), seconds=60)  # type: ignore[misc]
            self._give_gpus(node, gpus=gpus)

    def _start_traefik(self) -> None:
        token = self.instance.directory / "etc" / "traefik.token"
        if not token.exists():
            token.touch(mode=0o600)
            token.write_text(self.kubectl("create", "token", "traefik", "-n", "infra", "--duration=8760h").strip())
        empty = self.instance.directory / "traefik"  # it reads ./traefik.yaml as its configuration
        empty.mkdir(exist_ok=True)
        command = configs.traefik_command(self.instance, binary=wheel_binary("traefik"), token=token)
        self.processes.start("traefik", [*enter(self.instance), *command], cwd=empty)

    def _give_gpus(self, node: int, *, gpus: int) -> None:
        name = f"node-{node}"
        self.kubectl("label", "node", name, f"nvidia.com/gpu.product={GPU_PRODUCT}", "--overwrite")
        paths = ("capacity", "allocatable")
        patch = [{"op": "add", "path": f"/status/{path}/nvidia.com~1gpu", "value": str(gpus)} for path in paths]
        self.kubectl("patch", "node", name, "--subresource=status", "--type=json", "-p", json.dumps(patch))

    def _start(self, name: str, command: list[str]) -> None:
        self.processes.start(name, [*enter(self.instance), *command])

    def _wait_ready(self, *, nodes: int) -> None:
        for node in range(1, nodes + 1):
            self._await(f"kubelet-{node}", lambda node=node: self._node_ready(node), seconds=90)  # type: ignore[misc]
        self._await("coredns", lambda: _answers(f"http://{self.instance.address}:8181/ready"), seconds=30)
        self._await("traefik", lambda: _answers(f"http://{self.instance.address}:8082/ping"), seconds=30)

    def _await(self, name: str, holds: Callable[[], bool], *, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            if not self.processes.alive(name):
                raise NotReady(f"{name} ended: {self.processes.last_words(name)} (see `devcluster logs {name}`)")
            if time.monotonic() > deadline:
                last = self.processes.last_words(name)
                raise NotReady(f"{name} is not ready after {seconds:.0f} s: {last} (see `devcluster logs {name}`)")
            time.sleep(0.2)

    def _api_ready(self) -> bool:
        try:
            return self.kubectl("get", "--raw", "/readyz").strip() == "ok"
        except NotReady:
            return False

    def _node_exists(self, node: int) -> bool:
        return bool(self.kubectl("get", "node", f"node-{node}", "--ignore-not-found", "-o", "name").strip())

    def _node_ready(self, node: int) -> bool:
        path = "{.status.conditions[?(@.type=='Ready')].status}"
        return self.kubectl("get", "node", f"node-{node}", "-o", f"jsonpath={path}").strip() == "True"

    # -- storage ------------------------------------------------------------------------------------------------------

    def create_claim(self, *, namespace: str, name: str, path: Path | None = None, size: str = "50Gi") -> Path:
        """A bound ReadWriteMany claim on a directory of the host, writable for group 65532; returns the directory."""
        directory = path or self.storage_dir / namespace / name
        directory.mkdir(parents=True, exist_ok=True)
        os.chown(directory, 0, 65532)
        directory.chmod(0o2770)
        nodes = self.kubectl("get", "nodes", "-o", "jsonpath={.items[*].metadata.name}").split()
        self._free_volume(f"{namespace}-{name}")
        self.apply(*objects.local_volume(namespace=namespace, name=name, directory=directory, size=size, nodes=nodes))
        self.kubectl("wait", "--for=jsonpath={.status.phase}=Bound", "--timeout=60s", "-n", namespace, "pvc", name)
        return directory

    def _free_volume(self, name: str) -> None:
        """A volume whose claim was deleted stays reserved for that very claim; a namesake may have it, the files stay."""
        if self.kubectl("get", "pv", name, "--ignore-not-found", "-o", "jsonpath={.status.phase}") == "Released":
            forget = {"spec": {"claimRef": {"uid": None, "resourceVersion": None}}}
            self.kubectl("patch", "pv", name, "--type=merge", "-p", json.dumps(forget))

    # -- down -----------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Processes, mounts, namespaces (the pods' too), cgroups and the instance's directory; caches stay."""
        with self._locked():
            if self.processes.alive("apiserver"):
                self._step("pods", self._stop_pods)
            self._step("processes", self._stop_processes)
            self._step("mounts, cgroups, network, files", self._remove_traces)

    def _remove_traces(self) -> None:
        unmount_below(self.instance.directory)
        remove_cgroups()
        remove_pod_networks(self.instance)
        remove_network(self.instance)
        shutil.rmtree(self.instance.directory, ignore_errors=True)

    def _stop_pods(self) -> None:
        for name in self.processes.names():
            if name.startswith("kubelet-"):
                self.processes.stop(name)
        self.images.stop_containers()

    def _stop_processes(self) -> None:
        order = ["traefik", "coredns", "proxy", "scheduler", "controller-manager"]
        rest = [name for name in self.processes.names() if name not in {*order, "apiserver", "etcd"}]
        for name in [*order, *rest, "apiserver", "etcd"]:
            self.processes.stop(name)

    def status(self) -> list[tuple[str, str, str]]:
        """Part, state, detail."""
        rows = []
        for name in self.processes.names():
            pid = self.processes.pid(name)
            rows.append(
                (name, "running" if pid else "stopped", f"pid {pid}" if pid else self.processes.last_words(name))
            )
        return rows

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.instance.directory.mkdir(parents=True, exist_ok=True)
        lock = self.instance.home / f"{self.instance.name}.lock"
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"another devcluster command works on instance {self.instance.name}; waiting for it")
                fcntl.flock(held, fcntl.LOCK_EX)
            yield


def _slot(home: Path, *, name: str) -> int:
    """The number an instance keeps for its addresses, from a small register under a lock."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "slots.json").open("a+") as register:
        fcntl.flock(register, fcntl.LOCK_EX)
        register.seek(0)
        text = register.read()
        slots: dict[str, int] = json.loads(text) if text else {}
        if name not in slots:
            free = [slot for slot in range(SLOTS) if slot not in slots.values() and not _is_linked(slot, home=home)]
            if not free:
                raise MissingPrerequisite(f"{SLOTS} instances are registered in {home}/slots.json; remove old ones")
            slots[name] = free[0]
            register.truncate(0)
            register.write(json.dumps(slots))
        return slots[name]


def _is_linked(slot: int, *, home: Path) -> bool:
    """Whether somebody else's cluster (another DEVCLUSTER_HOME) runs at the addresses of this slot."""
    return (NETWORK_DEVICES / Instance(name="", slot=slot, home=home).host_link).exists()


def _write(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
