"""The HTTP server of an exported SavedModel."""
