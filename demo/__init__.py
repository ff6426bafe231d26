"""The demo: from nothing to a served, validated LoRA adapter on a real Kubernetes, told step by step.

Uses only what a user has (kubectl, helm, the manifests of examples/, HTTP through the Gateway); nothing here is known to the operator.
"""
