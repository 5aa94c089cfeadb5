"""Finetune an ImageNet-pretrained network on your own photos.

`recipes.finetune("photos/")` returns a `Result`: a measured plan, a trained classifier, and its accuracy with an
interval. The packages `recipes.layers`, `recipes.optimizers` and `recipes.augment` can also be used alone.
"""

import sys

import lazy_loader

from recipes.core.siblings import SiblingFinder

sys.meta_path.insert(0, SiblingFinder())
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
