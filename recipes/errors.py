"""What the user can mend: every error of `recipes` that is not a bug is one of these."""


class RecipesError(ValueError):
    """Base of all errors that say what was got, what was expected and how to mend it."""


class DataError(RecipesError):
    """The dataset cannot be used as it is."""


class BackboneError(RecipesError):
    """The backbone cannot be had or cannot be used."""


class RecipeError(RecipesError):
    """The recipe does not exist or contradicts itself."""


class TrainingError(RecipesError):
    """Training came to nothing: the loss is no longer a number."""


class ClusterError(RecipesError):
    """The workers of a job on several hosts cannot work together."""


class PeerLost(ClusterError):
    """A worker of the job is gone."""

    def __init__(self, what: str):
        super().__init__(f"{what}: give the same command again on every host, and they go on from the last state")


class OutputError(RecipesError):
    """The output folder cannot be written, holds something else, or is no run."""


class UnsafeFileError(RecipesError):
    """A file that was to be loaded is damaged, or asks for more than data: code, other files, or boundless memory."""


class WorkerError(RecipesError):
    """An input worker cannot be reached or cannot be used."""


class ProofError(RecipesError):
    """What was to be exported answers differently from the Result."""
