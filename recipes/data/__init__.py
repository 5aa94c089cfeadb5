"""Where labelled images come from, how they are split, and the one form in which they travel."""
