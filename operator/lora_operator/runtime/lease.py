"""Leader election on a Lease, by our own monotonic clock.

A candidate never trusts the holder's timestamps: it watches for the record to stand still for a whole lease duration of its
own clock. A leader that could not renew for `RENEW_WITHIN` stops at once: whoever finds out late must not write.
"""

import asyncio
import logging
from datetime import UTC, datetime

from lora_operator.api.kinds import LEASE
from lora_operator.kube.client import Json, Kube
from lora_operator.kube.errors import AlreadyExists, ApiError, Conflict
from lora_operator.runtime.metrics import LEADER

__all__ = ["LeaderElection", "LeaseLost"]

DURATION, RENEW_WITHIN, RETRY = 15.0, 10.0, 2.0
logger = logging.getLogger(__name__)


class LeaseLost(RuntimeError):
    """Somebody else may be writing now: end the process."""


class LeaderElection:
    """`await acquire()`, then run `hold()` beside the work; it raises LeaseLost."""

    def __init__(self, *, kube: Kube, namespace: str, name: str, identity: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._seen: tuple[str, float] = ("", 0.0)  # record of another holder, and since when it stands still
        self._renewed: float | None = None  # None: never ours

    def leads(self) -> bool:
        """Whether the Lease is ours for certain: renewed so lately that nobody can have taken it."""
        renewed = self._renewed
        return renewed is not None and asyncio.get_running_loop().time() - renewed < RENEW_WITHIN

    async def acquire(self) -> None:
        """Returns once the Lease is ours."""
        asked = asyncio.get_running_loop().time()
        while not await self._try():  # polled by design: there is no event for a record that stands still
            await asyncio.sleep(RETRY)
            asked = asyncio.get_running_loop().time()
        self._renewed = asked
        LEADER.set(1)
        logger.info("lease acquired", extra={"lease": self._name, "identity": self._identity})

    async def hold(self) -> None:
        """Renews until it cannot."""
        loop = asyncio.get_running_loop()
        renewed = loop.time() if self._renewed is None else self._renewed
        while True:
            await asyncio.sleep(RETRY)
            asked = loop.time()
            left = renewed + RENEW_WITHIN - asked
            try:
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the answer.
                async with asyncio.timeout(max(0.1, left)):
                    ours = await self._try()
            except TimeoutError:
                ours = None
            if ours:
                renewed = self._renewed = (
                    asked  # not the answer's time: the process may have been stopped before it came
                )
            elif ours is False or loop.time() - renewed >= RENEW_WITHIN:
                self._renewed = None
                LEADER.set(0)
                raise LeaseLost(
                    f"the lease {self._namespace}/{self._name} could not be renewed within {RENEW_WITHIN:.0f} s"
                )

    async def release(self) -> None:
        """Lets go of a Lease we hold, so that a standby need not wait; failing is harmless. From here on we do not lead."""
        self._renewed = None
        LEADER.set(0)
        try:
            lease = await self._kube.get(LEASE, namespace=self._namespace, name=self._name)
            if lease is not None and lease.get("spec", {}).get("holderIdentity") == self._identity:
                body = {
                    "metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]},
                    "spec": {"holderIdentity": ""},
                }
                await self._kube.patch(LEASE, namespace=self._namespace, name=self._name, body=body)
        except ApiError as error:
            logger.info("lease not released", extra={"error": str(error)})

    async def _try(self) -> bool | None:
        """True: ours. False: somebody else's. None: nobody knows (the API did not answer)."""
        try:
            lease = await self._kube.get(LEASE, namespace=self._namespace, name=self._name)
            if lease is None:
                await self._kube.create(LEASE, self._record(transitions=0))
                return True
            return await self._renew_or_take(lease)
        except (AlreadyExists, Conflict):
            return False
        except ApiError as error:
            logger.warning("lease not reachable", extra={"error": str(error)})
            return None

    async def _renew_or_take(self, lease: Json) -> bool:
        spec = lease.get("spec", {})
        holder, transitions = spec.get("holderIdentity"), int(spec.get("leaseTransitions") or 0)
        if holder != self._identity and holder and not self._stands_still(lease):
            return False
        record = self._record(transitions=transitions + (holder != self._identity))
        body = {"metadata": {"resourceVersion": lease["metadata"]["resourceVersion"]}, "spec": record["spec"]}
        await self._kube.patch(LEASE, namespace=self._namespace, name=self._name, body=body)
        return True

    def _stands_still(self, lease: Json) -> bool:
        version, now = str(lease["metadata"]["resourceVersion"]), asyncio.get_running_loop().time()
        if self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] >= DURATION

    def _record(self, *, transitions: int) -> Json:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": int(DURATION),
                "leaseTransitions": transitions,
                "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
