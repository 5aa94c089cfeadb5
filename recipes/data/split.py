"""Split off validation images by content, so that duplicates stay together and a renamed file keeps its split."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from recipes.errors import DataError


def stratified_split(
    labels: np.ndarray, fingerprints: Sequence[str], fraction: float = 0.2,
    *, seed: int = 0, class_names: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the indices (train, validation), with `fraction` of every class, and at least one image, in validation.

    Images with the same fingerprint form a group that stays together. Within a class the groups are ordered by
    hash(seed, fingerprint), which does not depend on file names or the order of the files. A group that would more than
    double the validation images of its class stays in the training set.

    Args:
        labels: Class (n,) of each image.
        fingerprints: Digest of the content of each image.
        fraction: Share of each class for validation, in (0, 1).
        seed: Seed of the choice of groups.
        class_names: Names of the classes, for messages.

    Raises:
        DataError: If the fraction is not in (0, 1), or a class has fewer than three distinct pictures. Two are needed
            for training and one for validation.
    """
    if not 0 < fraction < 1:
        raise DataError(
            f"`validation` must be a fraction between 0 and 1, such as 0.2, got {fraction}",
            code="split.fraction", value=fraction,
        )  # fmt: skip
    groups = defaultdict(list)
    for index, fingerprint in enumerate(fingerprints):
        groups[fingerprint].append(index)
    by_class = defaultdict(list)
    for fingerprint, members in groups.items():
        order = hashlib.blake2b(f"{seed}:{fingerprint}".encode(), digest_size=8).digest()
        by_class[int(labels[members[0]])].append((order, members))
    held_out = []
    for label, ordered in by_class.items():
        ordered.sort()
        if len(ordered) < 3:
            name = class_names[label] if class_names else label
            raise DataError(
                f"class {name!r} has {len(ordered)} distinct picture(s), but a split needs three, two for "
                "training and one for validation; add images, or give a validation dataset",
                code="split.small_class", class_name=name, pictures=len(ordered),
            )  # fmt: skip
        quota = max(1, round(fraction * sum(len(members) for _, members in ordered)))
        chosen = _fitting([members for _, members in ordered], quota)
        held_out += [index for members in chosen for index in members]
    mask = np.zeros(len(labels), bool)
    mask[held_out] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def _fitting(groups: list[list[int]], quota: int) -> list[list[int]]:
    """Return the first groups with `quota` images in total, without groups that would lead to more than twice as many.

    At least one group is chosen, and at least two groups remain.
    """
    chosen, count = [], 0
    for members in groups[:-2]:
        if count < quota and count + len(members) <= 2 * quota:
            chosen.append(members)
            count += len(members)
    return chosen or [min(groups, key=len)]
