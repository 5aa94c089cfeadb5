"""tf.data augmentation: one decode, one resample, one colour matrix per image."""

from .cache import Cache
from .decode import decode
from .header import file_kind
from .multicrop import CropGrid, multicrop, whole
from .pca import IMAGENET_PCA, PCA, fit_pca
from .pipeline import apply, centre_crop, epoch, pipeline
from .policy import Policy, PolicyError
from .preview import preview
from .source import Source
from .unsupported import unsupported

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
