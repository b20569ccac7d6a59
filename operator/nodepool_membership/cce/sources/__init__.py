"""Ways to an access key with an expiry, one small class each, and the renewal that all of them share.

Not for: a Secret's keys (`credentials`), which way a membership asks for (`runtime.cloud.identities`), or calls to CCE.
"""
