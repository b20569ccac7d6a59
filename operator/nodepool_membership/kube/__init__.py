"""The cluster: reading and writing the resource, reading Secrets, posting Events.

Not for: the cloud, or deciding anything about a membership.
"""

import sys
from importlib.util import find_spec, module_from_spec

# Only `kubernetes.aio` is used. The package above it would run, too, and bring its synchronous client with requests,
# oauthlib and websockets: 220 modules, and 5 of the 100 MiB that a process may have. So it is not run.
if "kubernetes" not in sys.modules and (_spec := find_spec("kubernetes")) is not None:
    sys.modules["kubernetes"] = module_from_spec(_spec)
