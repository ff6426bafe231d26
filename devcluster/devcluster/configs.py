"""Configuration files and command lines of every part, as pure functions of the instance."""

from pathlib import Path
from typing import Any

from devcluster.addresses import Instance

__all__ = [
    "audit_policy",
    "cni_conflist",
    "command_lines",
    "containerd_config",
    "corefile",
    "kubeconfig",
    "kubelet_config",
    "traefik_command",
]

LLM_BUCKETS = "0.05,0.1,0.25,0.5,1,2,5,10,20,30,60,120"


def command_lines(instance: Instance) -> dict[str, list[str]]:
    """The control plane's processes, in starting order."""
    kubebox = str(instance.binaries / "kubebox")
    pki = instance.directory / "pki"
    etc = instance.directory / "etc"
    return {
        "etcd": [
            kubebox, "etcd", f"--data-dir={instance.directory}/etcd", "--unsafe-no-fsync",
            "--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
            "--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
            "--initial-cluster=default=http://127.0.0.1:2380", "--log-level=warn",
        ],
        "apiserver": [
            kubebox, "kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", f"--advertise-address={instance.address}",
            f"--bind-address={instance.address}", "--secure-port=6443", "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction,OwnerReferencesPermissionEnforcement",
            "--enable-aggregator-routing=true", f"--service-cluster-ip-range={instance.service_network}",
            f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/apiserver.crt",
            f"--tls-private-key-file={pki}/apiserver.key", f"--kubelet-client-certificate={pki}/kubelet-client.crt",
            f"--kubelet-client-key={pki}/kubelet-client.key", f"--kubelet-certificate-authority={pki}/ca.crt",
            f"--service-account-key-file={pki}/service-account.key", "--kubelet-preferred-address-types=InternalIP",
            f"--service-account-signing-key-file={pki}/service-account.key",
            "--service-account-issuer=https://kubernetes.default.svc", f"--audit-policy-file={etc}/audit-policy.yaml",
            f"--audit-log-path={instance.directory}/audit.log", "--audit-log-maxsize=200", "--audit-log-maxbackup=1",
        ],
        "controller-manager": [
            kubebox, "kube-controller-manager", f"--kubeconfig={etc}/controller-manager.kubeconfig",
            f"--authentication-kubeconfig={etc}/controller-manager.kubeconfig",
            f"--authorization-kubeconfig={etc}/controller-manager.kubeconfig", "--use-service-account-credentials=true",
            "--leader-elect=false", f"--service-account-private-key-file={pki}/service-account.key",
            f"--root-ca-file={pki}/ca.crt", f"--cluster-signing-cert-file={pki}/ca.crt",
            f"--cluster-signing-key-file={pki}/ca.key",
        ],
        "scheduler": [
            kubebox, "kube-scheduler", f"--kubeconfig={etc}/scheduler.kubeconfig",
            f"--authentication-kubeconfig={etc}/scheduler.kubeconfig",
            f"--authorization-kubeconfig={etc}/scheduler.kubeconfig", "--leader-elect=false",
        ],
        "proxy": [
            kubebox, "kube-proxy", f"--kubeconfig={etc}/proxy.kubeconfig", "--proxy-mode=nftables",
            f"--cluster-cidr={instance.node_network}", "--hostname-override=node-1", "--conntrack-max-per-core=0",
            "--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0",
        ],
        "coredns": [str(instance.binaries / "coredns"), "-conf", f"{etc}/Corefile"],
    }  # fmt: skip


def kubeconfig(instance: Instance, *, user: str) -> dict[str, Any]:
    """A kubeconfig of a client certificate under pki/."""
    pki = instance.directory / "pki"
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": instance.name,
                "cluster": {"server": instance.api_url, "certificate-authority": f"{pki}/ca.crt"},
            }
        ],
        "users": [
            {"name": user, "user": {"client-certificate": f"{pki}/{user}.crt", "client-key": f"{pki}/{user}.key"}}
        ],
        "contexts": [{"name": instance.name, "context": {"cluster": instance.name, "user": user}}],
        "current-context": instance.name,
    }


def kubelet_config(instance: Instance, *, node: int) -> dict[str, Any]:
    """KubeletConfiguration that runs inside a sandbox without systemd and without its own cgroup hierarchy."""
    directory = instance.directory / f"node-{node}"
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": instance.node_address(node),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{instance.directory}/pki/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{instance.directory}/pki/node-{node}.crt",
        "tlsPrivateKeyFile": f"{instance.directory}/pki/node-{node}.key",
        "clusterDNS": [instance.dns_service],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{directory}/containerd.sock",
        "failCgroupV1": False,
        "cgroupDriver": "cgroupfs",
        "cgroupsPerQOS": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "localStorageCapacityIsolation": False,
        "oomScoreAdj": 0,
        "makeIPTablesUtilChains": False,
        "resolvConf": "",
        "featureGates": {"KubeletInUserNamespace": True},
        "healthzPort": 10248 + (node - 1) * 100,
        "podLogsDir": f"{directory}/pod-logs",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "maxPods": 110,
        "syncFrequency": "10s",
    }


def containerd_config(instance: Instance, *, node: int, pause_image: str) -> str:
    """containerd 1.6 (config version 2); its root is a cache, so that images survive `down`."""
    directory = instance.directory / f"node-{node}"
    return f"""\
version = 2
root = "{instance.image_store(node)}"
state = "{directory}/containerd-run"
oom_score = 0
[grpc]
  address = "{directory}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause_image}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{directory}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
"""


def cni_conflist(instance: Instance, *, node: int) -> dict[str, Any]:
    """Bridge network; the gateway must be the bridge's own address or sandboxes fail."""
    first, last = instance.pod_range(node)
    subnet = {"subnet": instance.node_network, "rangeStart": first, "rangeEnd": last, "gateway": instance.address}
    return {
        "cniVersion": "1.0.0",
        "name": "devcluster",
        "plugins": [
            {
                "type": "bridge",
                "bridge": instance.bridge,
                "isGateway": True,
                "ipMasq": False,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": f"{instance.directory}/node-{node}/ipam",
                    "ranges": [[subnet]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "loopback"},
        ],
    }


def corefile(instance: Instance) -> str:
    """Cluster DNS beside the plane; a name outside the cluster does not exist."""
    return f"""\
.:53 {{
    bind {instance.address}
    errors
    health {instance.address}:8053
    ready {instance.address}:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {instance.directory}/etc/admin.kubeconfig
    }}
    cache 5
    loop
}}
"""


def audit_policy() -> dict[str, Any]:
    """Metadata of every request but health checks: enough to count writes and to prove rights minimal."""
    return {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*"]},
            {"level": "Metadata"},
        ],
    }


def traefik_command(instance: Instance, *, binary: Path, token: Path) -> list[str]:
    """Traefik as data plane of Gateway API and of Ingress with canary annotations."""
    command = [
        str(binary),
        f"--entrypoints.web.address={instance.address}:8000",
        f"--entrypoints.traefik.address={instance.address}:8082",
        "--ping=true",
        "--metrics.prometheus=true",
        "--metrics.prometheus.addServicesLabels=true",
        f"--metrics.prometheus.buckets={LLM_BUCKETS}",
        "--global.sendAnonymousUsage=false",
        "--global.checkNewVersion=false",
        f"--providers.kubernetesgateway.statusaddress.ip={instance.address}",
    ]
    for provider in ("kubernetesgateway", "kubernetesingressnginx"):
        command += [
            f"--providers.{provider}=true",
            f"--providers.{provider}.endpoint={instance.api_url}",
            f"--providers.{provider}.token={token}",
            f"--providers.{provider}.certauthfilepath={instance.directory}/pki/ca.crt",
            f"--providers.{provider}.throttleduration=0s",
        ]
    return command
