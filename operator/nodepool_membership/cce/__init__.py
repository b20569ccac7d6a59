"""The cloud: the CCE API client, signing, errors, the write budget and shared node listings.

Not for: Kubernetes, or deciding anything about a membership.
"""
