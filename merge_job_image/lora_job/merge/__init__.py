"""The merge engine: inspect, plan, merge, verify, publish."""
