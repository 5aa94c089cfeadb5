"""Files, archives, devices and other foundations that know nothing of images or training."""
