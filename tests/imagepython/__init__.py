"""The Python of the operator's image, for tests on a machine that has another one.

Not for the image: the Dockerfile names its base, and this package reads the version there.
"""
