"""`python -m lora_operator`: settings → probes → Lease → first list → watch and work. A lost Lease or a dead task ends the process.

probes, metrics ───────────────────────────────────────────────► (from the first moment)
Lease ─► first list ─► queue, kopf's watches, slow re-list ────► exit(1) when any of them ends
"""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol
from uuid import uuid4

import kopf

from lora_operator.api.kinds import ADAPTER, LORA_DEPLOYMENT
from lora_operator.handlers import register
from lora_operator.kube.api import connect
from lora_operator.kube.client import Kube
from lora_operator.kube.errors import ApiError, NotFound, Retryable
from lora_operator.kube.events import EventRecorder
from lora_operator.kube.leader_only import LeaderOnly
from lora_operator.reconcile.adapter import AdapterReconciler
from lora_operator.reconcile.collector import Collector
from lora_operator.reconcile.deployment import DeploymentReconciler
from lora_operator.reconcile.effects import Effects
from lora_operator.reconcile.step import Stepper
from lora_operator.reconcile.verifier import Verifier
from lora_operator.runtime.cache import Cache
from lora_operator.runtime.clock import SystemClock
from lora_operator.runtime.lease import LeaderElection, LeaseLost
from lora_operator.runtime.logs import configure_logs
from lora_operator.runtime.metrics import RECONCILE_ERRORS, RECONCILE_SECONDS
from lora_operator.runtime.probes import Probes
from lora_operator.runtime.queue import Key, Queue
from lora_operator.runtime.sync import Sync
from lora_operator.settings import BadSettings, Settings, load_settings
from lora_operator.telemetry.prometheus import PrometheusSource
from lora_operator.telemetry.scrape import ScrapeSource

__all__ = ["main"]

LEASE_NAME = "lora-operator"
STUCK_SECONDS = 300.0
STOPPING_SECONDS = 5.0
WORKERS = 4
logger = logging.getLogger("lora_operator")


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    arguments = _arguments(argv)
    configure_logs(level=arguments.log_level)
    try:
        settings = load_settings(
            arguments.settings,
            operator_image=os.environ.get("LORA_OPERATOR_IMAGE", ""),
            job_image=os.environ.get("LORA_JOB_IMAGE", ""),
            image_pull_policy=os.environ.get("LORA_IMAGE_PULL_POLICY", "IfNotPresent"),
        )
    except BadSettings as error:
        logger.error("settings: %s", error)  # noqa: TRY400 (a sentence for a person, not a traceback)
        sys.exit(2)
    try:
        asyncio.run(_run(settings, arguments))
    except BaseExceptionGroup as group:
        for leaf in _leaves(group):
            known = isinstance(leaf, LeaseLost | ApiError | _Ended)
            logger.error("%s", leaf, exc_info=None if known else leaf)  # noqa: TRY400
        sys.exit(1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="lora_operator", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--settings", type=Path, default=None, help="settings.yaml; without it the built-in values hold"
    )
    parser.add_argument("--namespaces", default="all", help="comma-separated, or all")
    parser.add_argument("--port", type=int, default=8080, help="of /healthz, /readyz and /metrics")
    parser.add_argument("--log-level", default="INFO", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    return parser.parse_args(argv)


class _Ended(RuntimeError):
    """A part that should run for ever has ended."""


class _Reconciler(Protocol):
    async def reconcile(self, key: Key) -> float | None: ...


class _Process:
    """What lives as long as the process."""

    def __init__(self, kube: Kube, settings: Settings, *, namespaces: Sequence[str] | None) -> None:
        clock = SystemClock()
        self.cache = Cache()
        self.verifier = Verifier(wake=self._wake)
        collector = Collector(scrape=ScrapeSource(), prometheus=PrometheusSource(), wake=self._wake, clock=clock)
        effects = Effects(kube=kube, cache=self.cache, verifier=self.verifier, collector=collector)
        stepper = Stepper(kube=kube, cache=self.cache, effects=effects, events=EventRecorder(kube=kube))
        self._reconcilers: dict[str, _Reconciler] = {
            ADAPTER.plural: AdapterReconciler(
                kube=kube, cache=self.cache, stepper=stepper, settings=settings, clock=clock
            ),
            LORA_DEPLOYMENT.plural: DeploymentReconciler(
                kube=kube,
                cache=self.cache,
                stepper=stepper,
                settings=settings,
                clock=clock,
                verifier=self.verifier,
                collector=collector,
            ),
        }
        self.queue = Queue(reconcile=self._reconcile, on_error=_count_error, workers=WORKERS)
        self.sync = Sync(kube=kube, cache=self.cache, queue=self.queue, namespaces=namespaces)
        self.leading = False

    def healthy(self) -> bool:
        """Work waits and nothing was finished for minutes: something hangs."""
        idle = asyncio.get_running_loop().time() - self.queue.last_progress
        return not self.leading or not self.queue.due or idle < STUCK_SECONDS

    def ready(self) -> bool:
        """A standby is; a leader once its cache is complete."""
        return not self.leading or self.sync.done

    async def _reconcile(self, key: Key) -> float | None:
        with RECONCILE_SECONDS.labels(resource=key.resource).time():
            return await self._reconcilers[key.resource].reconcile(key)

    def _wake(self, key: Key) -> None:
        self.queue.add(key)


def _count_error(key: Key, error: Exception) -> None:
    RECONCILE_ERRORS.labels(resource=key.resource, error=type(error).__name__).inc()
    expected = isinstance(error, Retryable)
    logger.log(
        logging.WARNING if expected else logging.ERROR,
        "reconcile failed, will be retried: %s",
        error,
        extra={"key": str(key), "error": type(error).__name__},
        exc_info=None if isinstance(error, ApiError) else error,
    )


async def _run(settings: Settings, arguments: argparse.Namespace) -> None:
    namespaces = None if arguments.namespaces == "all" else [name for name in arguments.namespaces.split(",") if name]
    identity = os.environ.get("POD_NAME") or f"{socket.gethostname()}-{uuid4().hex[:6]}"
    async with connect() as kube:
        election = LeaderElection(
            kube=kube, namespace=os.environ.get("POD_NAMESPACE", "default"), name=LEASE_NAME, identity=identity
        )
        process = _Process(LeaderOnly(kube, leads=election.leads), settings, namespaces=namespaces)
        probes = Probes(healthy=process.healthy, ready=process.ready)
        async with asyncio.TaskGroup() as group:
            serving = group.create_task(probes.serve(host="0.0.0.0", port=arguments.port))  # noqa: S104 (probed by the kubelet)
            stop = asyncio.Event()
            _stop_on_signals(stop)
            working = group.create_task(_lead(process, election, namespaces=namespaces, stop=stop))
            await stop.wait()
            logger.info("asked to stop")
            serving.cancel()
            working.cancel()
            # Nothing of ours is under way when another one begins.
            await asyncio.wait([working], timeout=STOPPING_SECONDS)
            await election.release()


def _stop_on_signals(stop: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)


async def _lead(
    process: _Process, election: LeaderElection, *, namespaces: Sequence[str] | None, stop: asyncio.Event
) -> None:
    await election.acquire()
    process.leading = True
    async with asyncio.TaskGroup() as group:
        group.create_task(election.hold())
        try:
            installed = await process.sync.first()
        except NotFound as error:
            raise _Ended(
                f"the CRDs are not installed ({error}); apply crds/ or set crds.install in the chart"
            ) from error
        registry = kopf.get_default_registry()
        register(registry, cache=process.cache, queue=process.queue, installed=installed)
        group.create_task(process.queue.run())
        group.create_task(process.sync.keep(installed))
        group.create_task(_watch(registry, namespaces=namespaces, stop=stop))


async def _watch(registry: kopf.OperatorRegistry, *, namespaces: Sequence[str] | None, stop: asyncio.Event) -> None:
    """kopf's watches, which must not end by themselves. `stop` is set by a signal, as before."""
    others = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(registry=registry, clusterwide=namespaces is None, namespaces=list(namespaces or ()))
    # kopf has put handlers of its own in the place of ours. They end its watches, and the Lease would stay taken until it runs out.
    _stop_on_signals(stop)
    await kopf.run_tasks(tasks, ignored=others)
    raise _Ended("the watches have ended")


if __name__ == "__main__":
    main()
