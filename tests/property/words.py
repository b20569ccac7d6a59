"""What people say of a rollout: how many servers go first, that a plan waits for a yes, and the yes itself.

Not for: all else that may happen (`machine`).
"""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from nodepool_membership.core.preflight.facts import Template
from property.cloud_model import Cloud
from property.stored_object import StoredObject


class Words(RuleBasedStateMachine):
    """Rules over the object and the cloud that a machine has."""

    stored: StoredObject
    cloud: Cloud

    def work(self, seconds: float, reconciles: int) -> None:
        """Let the operator work."""
        raise AssertionError(f"no operator works {seconds} s, {reconciles} times: a machine has one, these have none")

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

    def without_words(self) -> None:
        """Nobody asks for anything."""
        self.stored.edit(approval="Automatic", rollout={"canary": 0})
