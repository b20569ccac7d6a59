"""`python -m nodepool_membership`: the same as the `nodepool-membership` command.

Not for: anything else.
"""

from nodepool_membership.cli import main

if __name__ == "__main__":
    main()
