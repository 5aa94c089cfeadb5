"""Finetune an ImageNet-pretrained network on your own photos.

`recipes.finetune("photos/")` returns a `Result`: a measured plan, a trained classifier, and its accuracy with interval.
"""

import importlib.util
import sys
from pathlib import Path


def _check_siblings() -> None:
    """Check that the packages `layers`, `optimizers` and `augment`, which are common names, are those of this project.

    Raises:
        ImportError: If another package or nothing has such a name.
    """
    root = Path(__file__).resolve().parent.parent
    for name in ("layers", "optimizers", "augment"):
        loaded = sys.modules.get(name)
        spec = None if loaded else importlib.util.find_spec(name)
        file = getattr(loaded, "__file__", None) or (spec and spec.origin)
        if file is None or Path(file).resolve() != root / name / "__init__.py":
            raise ImportError(
                f"recipes needs its own package {name!r} from {root / name}, but Python finds "
                f"{file or 'a folder without __init__.py, or nothing'}, which shadows it. Rename or move that, "
                "or start Python in another folder (sys.path is searched in order).",
                name=name,
            )


_check_siblings()

from recipes.auditing.audit import Audit, Finding, audit
from recipes.data.packs.writer import pack
from recipes.data.tables.reader import from_csv
from recipes.diagnostics.babysitter import Babysitter
from recipes.diagnostics.diagnose import Diagnosis, diagnose
from recipes.errors import (
    BackboneError,
    ClusterError,
    DataError,
    OutputError,
    PeerLost,
    ProofError,
    RecipeError,
    RecipesError,
    TrainingError,
    UnsafeFileError,
    WorkerError,
)
from recipes.evaluation.ledger import Gain
from recipes.evaluation.ledger import table as ledger_table
from recipes.evaluation.metrics import Evaluation
from recipes.evaluation.test_time import lecture_scales
from recipes.finetuning import finetune
from recipes.planning.plan import plan
from recipes.planning.ready_made import Adjusted, adjusted, finetune_all, finetune_few, from_scratch, linear_probe
from recipes.planning.recipe import Recipe
from recipes.planning.summary import Summary
from recipes.pretraining import pretrain
from recipes.probing.probe import Probe, StageResult, probe
from recipes.result import Prediction, Result, load
from recipes.studies.ablate import Ablation, ablate
from recipes.studies.ensemble import ensemble, soup
from recipes.studies.rank import Ranking, rank
from recipes.tuning.search import Search, search

__all__ = [
    "Ablation",
    "Adjusted",
    "Audit",
    "Babysitter",
    "BackboneError",
    "ClusterError",
    "DataError",
    "Diagnosis",
    "Evaluation",
    "Finding",
    "Gain",
    "OutputError",
    "PeerLost",
    "Prediction",
    "Probe",
    "ProofError",
    "Ranking",
    "Recipe",
    "RecipeError",
    "RecipesError",
    "Result",
    "Search",
    "StageResult",
    "Summary",
    "TrainingError",
    "UnsafeFileError",
    "WorkerError",
    "ablate",
    "adjusted",
    "audit",
    "diagnose",
    "ensemble",
    "finetune",
    "finetune_all",
    "finetune_few",
    "from_csv",
    "from_scratch",
    "lecture_scales",
    "ledger_table",
    "linear_probe",
    "load",
    "pack",
    "plan",
    "pretrain",
    "probe",
    "rank",
    "search",
    "soup",
]
