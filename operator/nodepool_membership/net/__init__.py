"""The ways out to the network that all clients share: which proxy, which certificates, and why a connection failed.

Not for: making connections; `cce` and `kube` have a client each. Needs the standard library only.
"""
