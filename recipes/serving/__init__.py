"""Serve an exported SavedModel over HTTP."""
