"""Names, addresses and paths of one instance. Every figure follows from the instance's slot, so that two never collide.

10.X.0.0/16  nodes (.0.1, .0.2), pods (.1.x, .2.x)      10.X+1.0.0/30  link to the host      10.X+2.0.0/16  Services
"""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Instance"]

FIRST, STRIDE, SLOTS = 77, 3, 40


@dataclass(frozen=True)
class Instance:
    """One cluster on this machine."""

    name: str
    slot: int
    home: Path  # DEVCLUSTER_HOME

    @property
    def _octet(self) -> int:
        return FIRST + STRIDE * self.slot

    @property
    def namespace(self) -> str:
        return f"lorabox-{self.name}"

    @property
    def bridge(self) -> str:
        return f"kbr{self.slot}"

    @property
    def host_link(self) -> str:
        return f"lkh{self.slot}"

    @property
    def box_link(self) -> str:
        return f"lkb{self.slot}"

    @property
    def node_network(self) -> str:
        return f"10.{self._octet}.0.0/16"

    @property
    def service_network(self) -> str:
        return f"10.{self._octet + 2}.0.0/16"

    @property
    def address(self) -> str:
        """Of node 1, the API server, DNS and Traefik."""
        return f"10.{self._octet}.0.1"

    def node_address(self, node: int) -> str:
        return f"10.{self._octet}.0.{node}"

    def pod_range(self, node: int) -> tuple[str, str]:
        return f"10.{self._octet}.{node}.10", f"10.{self._octet}.{node}.250"

    @property
    def host_side(self) -> str:
        return f"10.{self._octet + 1}.0.1"

    @property
    def box_side(self) -> str:
        return f"10.{self._octet + 1}.0.2"

    @property
    def kubernetes_service(self) -> str:
        return f"10.{self._octet + 2}.0.1"

    @property
    def dns_service(self) -> str:
        return f"10.{self._octet + 2}.0.10"

    @property
    def directory(self) -> Path:
        return self.home / "instances" / self.name

    def image_store(self, node: int) -> Path:
        """containerd's root: a cache that outlives the cluster, because loading six gigabytes takes a minute."""
        return self.home / "containerd" / f"{self.name}-{node}"

    @property
    def binaries(self) -> Path:
        return self.home / "bin"

    @property
    def gateway_url(self) -> str:
        return f"http://{self.address}:8000"

    @property
    def api_url(self) -> str:
        return f"https://{self.address}:6443"
