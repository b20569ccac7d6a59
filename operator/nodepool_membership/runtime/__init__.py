"""The process: options, the work queue, the reconcile loop, kopf wiring, health, metrics and logging.

Not for: rules about batches and servers (`core`), or wire formats (`cce`, `kube`).
"""
