"""tf.data augmentation: one decode, one resample, one colour matrix per image."""

from augment.decode import decode, file_kind
from augment.pipeline import Source, centre_crop, epoch
from augment.policy import Policy, PolicyError

__all__ = ["Policy", "PolicyError", "Source", "centre_crop", "decode", "epoch", "file_kind"]
