"""`kubectl npmem`: what a person asks of memberships, on a laptop or in a pipeline.

Not for: the operator, which imports nothing of it. Its further packages are those of the extra `plugin`.
"""
