"""What a folder of photos is: its classes, splits, and what in it is skipped."""
