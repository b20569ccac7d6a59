"""`make demo`: the main job on the screen, on a real API server with a simulator in place of the cloud.

Not for: asserting details; it fails only when the simulator's ledger and the resource's status differ.
"""
