"""Files, archives, devices and other foundations that do not depend on images or training."""
