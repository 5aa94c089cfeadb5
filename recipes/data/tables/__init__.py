"""Tables that list images: encodings, columns, splits and paths."""
