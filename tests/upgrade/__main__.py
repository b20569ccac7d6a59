"""`python -m upgrade`: freeze what this version stores."""

from upgrade.frozen import freeze

print(freeze())
