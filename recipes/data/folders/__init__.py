"""Read folders of images: find their classes and splits, and the folders to skip."""
