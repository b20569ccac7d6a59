"""A local HTTP server that behaves as the CCE API does, for tests and for trying the operator out.

Not for: production, and not a model of Kubernetes; it knows nothing of the operator.
"""
