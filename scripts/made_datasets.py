"""Datasets that differ from ImageNet, made from what is at hand, so that the plan is not tuned to the four at hand."""

import numpy as np

from recipes.data.images import ImageData, labelled


def textures(per_class: int, seed: int) -> ImageData:
    """Ten textures of 96 × 96: noise filtered to a band of wavelengths and directions, in random colours."""
    random = np.random.default_rng(seed)
    side, images, labels = 96, [], []
    y, x = np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side), indexing="ij")
    radius, angle = np.hypot(x, y), np.arctan2(y, x)
    for c in range(10):
        wavelength, direction, spread = (6.0, 10.0)[c // 5], np.pi * (c % 5) / 5, (0.35, 0.9)[c % 2]
        for _ in range(per_class):
            band = np.exp(-((np.log(radius + 1e-9) + np.log(wavelength * random.uniform(0.8, 1.25))) ** 2) / 0.1)
            turned = direction + random.normal(0, 0.12)
            band = band * np.exp((np.cos(2 * (angle - turned)) - 1) / spread)
            field = np.fft.ifft2(np.fft.fft2(random.normal(size=(side, side))) * band).real
            shade = 0.5 + 0.2 * field[..., None] / field.std()
            dark, light = random.uniform(0, 0.6, 3), random.uniform(0.4, 1, 3)
            pixels = dark + shade * (light - dark) + random.normal(0, 0.06, (side, side, 3))
            images.append((255 * np.clip(pixels, 0, 1)).astype(np.uint8))
            labels.append(c)
    return labelled(np.stack(images), labels, [f"texture {i}" for i in range(len(labels))])


def signs(per_class: int, seed: int) -> ImageData:
    """Ten letters of 64 × 64 in many fonts, bent and in random colours on random ground."""
    from recipes.data.digits import enlarge
    from recipes.data.glyphs import glyphs

    random = np.random.default_rng(seed)
    drawn = glyphs(70 * per_class * 2, seed=seed)
    names = [name for name in drawn.class_names if name[0].isascii() and name[0].isalpha()][:10]
    chosen = [np.flatnonzero(drawn.labels == drawn.class_names.index(name))[:per_class] for name in names]
    rows = np.concatenate(chosen)
    grey = enlarge(drawn.images[rows, ..., 0].astype(np.float32), 64)[..., None] / 255
    dark, light = (random.uniform(low, low + 0.5, (len(rows), 1, 1, 3)) for low in (0.0, 0.5))
    pixels = dark + grey * (light - dark) + random.normal(0, 0.08, (len(rows), 64, 64, 3))
    labels = np.repeat(np.arange(len(names)), [len(part) for part in chosen])
    return labelled((255 * np.clip(pixels, 0, 1)).astype(np.uint8), labels, [f"sign {i}" for i in range(len(rows))])


def shrunk(data: ImageData, side: int = 32) -> ImageData:
    """Tiny photos: `data` at side × side."""
    import augment

    policy = augment.Policy.none(side)
    pixels = np.stack([augment.centre_crop(data.encoded(i), policy).numpy() for i in range(len(data))])
    return labelled(np.rint(pixels).astype(np.uint8), data.labels, data.names)
