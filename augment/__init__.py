"""tf.data augmentation: one decode, one resample, one colour matrix per image."""

from augment.decode import decode, file_kind
from augment.pca import IMAGENET_PCA, PCA
from augment.pipeline import centre_crop, epoch
from augment.policy import Policy, PolicyError
from augment.source import Source

__all__ = ["IMAGENET_PCA", "PCA", "Policy", "PolicyError", "Source", "centre_crop", "decode", "epoch", "file_kind"]
