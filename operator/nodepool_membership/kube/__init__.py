"""The cluster: reading and writing the resource, reading Secrets, posting Events.

Not for: the cloud, or deciding anything about a membership.
"""
