"""The facts about a dataset, a network and a machine that the plan needs."""

from dataclasses import dataclass

A_LOT = 200  # smallest number of images per class that the lecture calls a lot of data


@dataclass(frozen=True)
class Summary:
    """The facts about a dataset, a network and a machine that the plan needs.

    Attributes:
        images: Number of training images.
        classes: Number of classes.
        size: Image size of the probe, pixels.
        pretrained: Whether the weights of the backbone are trained.
        held_out: Number of validation images that compare finetuning with the linear classifier; None if there are
            enough.
        imbalance: Number of images in the largest class divided by the number in the smallest class.
        weights: Number of weights of the backbone.
        activations: Bytes of all layers' outputs for one image.
        memory: Free bytes on the device that trains; None if unknown.
        image_seconds: Seconds of one forward pass of one image; 0 if unknown.
        seconds_left: Remaining seconds of the time limit; None without a limit.
    """

    images: int
    classes: int
    size: int
    pretrained: bool = True
    held_out: int | None = None
    imbalance: float = 1.0
    weights: int = 0
    activations: int = 0
    memory: int | None = None
    image_seconds: float = 0.0
    seconds_left: float | None = None

    @property
    def per_class(self) -> float:
        """Mean number of images per class."""
        return self.images / self.classes

    @property
    def a_lot(self) -> bool:
        """Whether the lecture would call this a lot of data."""
        return self.per_class >= A_LOT
