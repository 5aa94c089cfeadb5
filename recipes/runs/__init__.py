"""The folder of a run: saving, loading and resuming."""
