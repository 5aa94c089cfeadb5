"""Read tables that list images: encodings, columns, splits and paths."""
