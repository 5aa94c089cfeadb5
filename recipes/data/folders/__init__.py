"""Read folders of images: find their classes and splits, and what to skip."""
