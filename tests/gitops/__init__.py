"""What GitOps tools make of the statuses that the operator writes, and what is shipped for them."""
