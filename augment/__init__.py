"""tf.data augmentation: one decode, one resample, one colour matrix per image."""

from augment.cache import Cache
from augment.decode import decode
from augment.header import file_kind
from augment.multicrop import CropGrid, multicrop, whole
from augment.pca import IMAGENET_PCA, PCA, fit_pca
from augment.pipeline import apply, centre_crop, epoch, pipeline
from augment.policy import Policy, PolicyError
from augment.preview import preview
from augment.source import Source
from augment.unsupported import unsupported

__all__ = [
    "IMAGENET_PCA",
    "PCA",
    "Cache",
    "CropGrid",
    "Policy",
    "PolicyError",
    "Source",
    "apply",
    "centre_crop",
    "decode",
    "epoch",
    "file_kind",
    "fit_pca",
    "multicrop",
    "pipeline",
    "preview",
    "unsupported",
    "whole",
]
