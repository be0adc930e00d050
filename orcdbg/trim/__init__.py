"""Which memory is enough to walk stacks, and a smaller snapshot of just that."""
