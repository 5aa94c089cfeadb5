"""The exceptions of `recipes`. Each reports a mistake that a user can correct; other exceptions are bugs."""


class RecipesError(ValueError):
    """Base of all errors: the message says what was wrong, what was expected, and what to do.

    Args:
        message: The message for a person; it may change between versions.
        code: Stable name of the mistake for programs, such as "table.no_labels"; by default the code of the class.
        **facts: The values in the message by name (`path`, `field`, `value`, …). Each becomes an attribute.
    """

    code = "recipes"

    def __init__(self, message: object = "", *, code: str | None = None, **facts: object) -> None:
        super().__init__(message)
        self.code = code or type(self).code
        for name, value in facts.items():
            setattr(self, name, value)


class DataError(RecipesError):
    """The dataset cannot be used as it is."""

    code = "data"


class BackboneError(RecipesError):
    """The backbone cannot be loaded or cannot be used."""

    code = "backbone"


class RecipeError(RecipesError):
    """A recipe or another argument of a job is unknown, out of range, or contradicts another one."""

    code = "recipe"


class TrainingError(RecipesError):
    """Training failed: the loss became NaN or infinite."""

    code = "training"


class ClusterError(RecipesError):
    """The workers of a job on several hosts cannot work together."""

    code = "cluster"


class PeerLost(ClusterError):
    """A worker of the job has stopped."""

    code = "cluster.peer_lost"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: run the same command again on every host to resume from the last saved state")


class OutputError(RecipesError):
    """The output folder cannot be written, holds other files, or is not a run."""

    code = "output"


class UnsafeFileError(RecipesError):
    """A file is damaged, or loading it would run code, read other files or use unbounded memory."""

    code = "unsafe_file"


class WorkerError(RecipesError):
    """An input worker cannot be reached or cannot be used."""

    code = "worker"


class ProofError(RecipesError):
    """The predictions of an exported model differ from those of the Result."""

    code = "proof"
