"""Memberships in files, before anybody applies them: read, held against the schema and against one another.

Not for: memberships in a cluster.
"""
