"""`make bench`: figures of the operator as counts and ratios, with the limits that they are held to.

Not for: promises; those have tests. Times depend on the machine, so with `--quick`, which CI runs, only counts decide.
"""
