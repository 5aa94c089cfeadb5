"""Load labelled images from all sources into one form, and split them."""
