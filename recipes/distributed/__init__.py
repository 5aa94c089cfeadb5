"""Train on several hosts."""
