"""What people say of a rollout: how many servers go first, that a plan waits for a yes, and the yes itself.

Not for: all else that may happen (`machine`).
"""

from hypothesis import strategies as st
from hypothesis.stateful import rule

from nodepool_membership.core.preflight.facts import Template
from property.machine import Machine


class WordMachine(Machine):
    """All that may happen, and a person's word besides."""

    @rule(canary=st.integers(0, 2))
    def edit_canary(self, canary: int) -> None:
        self.stored.edit(rollout={"canary": canary})

    @rule(approval=st.sampled_from(("Automatic", "Manual")))
    def edit_approval(self, approval: str) -> None:
        self.stored.edit(approval=approval)

    @rule(yes=st.booleans())
    def approve(self, *, yes: bool) -> None:
        self.work(600.0, 3)
        self.stored.approve(yes=yes)
        self.work(600.0, 3)

    @rule(template=st.sampled_from(("one", "two")))
    def change_the_template(self, template: str) -> None:
        if self.cloud.template.digest != template:
            self.cloud.template = Template(template)
            self.stored.void()

    def ends_well(self) -> None:
        """As for the other machine, once nobody asks for a canary or a yes any more."""
        self.stored.edit(approval="Automatic", rollout={"canary": 0})
        super().ends_well()
