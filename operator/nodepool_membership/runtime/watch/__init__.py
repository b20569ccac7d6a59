"""Which objects changed: kopf's watch, and what of it wakes a key.

Not for: reading objects (`kube`), or who is worked next (`runtime.scheduling`).
"""
