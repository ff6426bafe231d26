"""Prometheus metrics of the operator itself."""

from prometheus_client import Counter, Gauge, Histogram

__all__ = ["API_WRITES", "LEADER", "QUEUE_DEPTH", "RECONCILE_ERRORS", "RECONCILE_SECONDS"]

API_WRITES = Counter("lora_operator_api_writes", "Writes sent to the API server", ["verb", "kind"])
RECONCILE_SECONDS = Histogram(
    "lora_operator_reconcile_seconds",
    "Duration of one reconcile",
    ["resource"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter(
    "lora_operator_reconcile_errors", "Reconciles that failed and are retried", ["resource", "error"]
)
QUEUE_DEPTH = Gauge("lora_operator_queue_depth", "Keys waiting to be reconciled")
LEADER = Gauge("lora_operator_leader", "1 while this process holds the Lease")
