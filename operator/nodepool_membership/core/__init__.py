"""What is to be done with a membership: pure functions over frozen types, time is an argument.

Not for: I/O, clocks, randomness. What the cloud showed comes in as an `Observation`, what to do goes out as
a `Decision`.
"""
