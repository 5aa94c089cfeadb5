"""What the plan needs to know of a dataset, of the network and of the machine."""

from dataclasses import dataclass

A_LOT = 200  # images per class from which the lecture's "a lot of data" begins


@dataclass(frozen=True)
class Summary:
    """What the plan needs to know of a dataset, of the network and of the machine.

    images, classes: of the training part.
    size:            image size that the probe was run at, pixels.
    pretrained:      whether the backbone carries trained weights.
    held_out:        validation images, on which finetuning is compared with the linear classifier; None: enough.
    imbalance:       images of the largest class / of the smallest.
    weights:         number of the backbone's.
    activations:     bytes of all its layers' outputs for one image.
    memory:          bytes free on the device that trains; None where it is not known.
    image_seconds:   one forward pass of one image; 0 where it is not known.
    seconds_left:    of the time limit; None without one.
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
        return self.images / self.classes

    @property
    def a_lot(self) -> bool:
        return self.per_class >= A_LOT
