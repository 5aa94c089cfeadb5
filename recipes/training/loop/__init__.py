"""One training: its steps, its state, its faults and its signals."""
