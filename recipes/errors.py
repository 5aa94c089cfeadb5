"""Define the exceptions of `recipes`: each reports a mistake that a user can correct; other exceptions are bugs."""


class RecipesError(ValueError):
    """Report what was wrong, what was expected, and what to do; base class of all errors of `recipes`.

    Args:
        message: The message for a person; it may change between versions.
        code: Stable name of the mistake for programs, such as "table.no_labels"; default: the code of the class.
        **facts: The values in the message by name (`path`, `field`, `value`, …). Each becomes an attribute.
    """

    code = "recipes"

    def __init_subclass__(cls, *, code: str = "") -> None:
        cls.code = code or cls.code

    def __init__(self, message: object = "", *, code: str | None = None, **facts: object) -> None:
        super().__init__(message)
        vars(self).update(facts, code=code or self.code)

    def __repr__(self) -> str:
        """Return the class, the code and the beginning of the message. The whole message may list hundreds of files."""
        message = " ".join(str(self).split())
        shown = message if len(message) <= 200 else message[:199] + "…"
        return f"{type(self).__name__}({shown!r}, code={self.code!r})"


class DataError(RecipesError, code="data"):
    """The dataset cannot be used without a correction."""


class BackboneError(RecipesError, code="backbone"):
    """The backbone cannot be loaded or cannot be used."""


class RecipeError(RecipesError, code="recipe"):
    """A recipe or another argument of a job is unknown, out of range, or contradicts another one."""


class TrainingError(RecipesError, code="training"):
    """Training failed: the loss became NaN or infinite."""


class ClusterError(RecipesError, code="cluster"):
    """The workers of a job on several hosts cannot work together."""


class PeerLost(ClusterError, code="cluster.peer_lost"):
    """A worker of a job on several hosts has stopped."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: run the same command again on every host to resume from the last saved state")


class OutputError(RecipesError, code="output"):
    """The output folder cannot be written, holds other files, or is not a run."""


class UnsafeFileError(RecipesError, code="unsafe_file"):
    """A file is damaged, or loading it would run code, read other files or use unbounded memory."""


class WorkerError(RecipesError, code="worker"):
    """An input worker cannot be reached or cannot be used."""


class ProofError(RecipesError, code="proof"):
    """The predictions of an exported model differ from those of the Result that was exported."""
