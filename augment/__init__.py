"""Augment images in tf.data with one decode, one resample and one colour matrix per image."""

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

# isort: split
# `recipes` uses these names, which are not public.
from .bmp import bmp_size as bmp_size
from .decode import jpeg_size as jpeg_size
from .decode import png_size as png_size
from .decode import upright as upright
from .gif import gif_size as gif_size
from .header import is_gif as is_gif
from .header import is_jpeg as is_jpeg
from .header import is_png as is_png
from .header import is_webp as is_webp
from .header import starts as starts
from .pixel_range import range_fault as range_fault
from .preview import drawn as drawn

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
