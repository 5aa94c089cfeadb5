"""The lecture's 2 × 2 table with a dataset marked in it."""

from recipes.planning.evidence import ProbeEvidence, similar
from recipes.planning.plan import TRAINABLE
from recipes.planning.summary import Summary


def table(summary: Summary, probe: ProbeEvidence) -> str:
    """Return the lecture's 2 × 2 table as aligned text with this dataset marked in it."""
    trainable = ", then finetune a few stages" if summary.images >= TRAINABLE else ""
    cells = {
        (False, True): f"linear classifier on the top features{trainable}",
        (False, False): "linear classifier on several stages, then finetune all",
        (True, True): "finetune a few stages",
        (True, False): "finetune all stages",
    }
    marked = (summary.a_lot, similar(probe))
    width = max(map(len, cells.values())) + 4
    lines = [f"{'':14}{'similar to ImageNet':{width}}different from ImageNet"]
    for a_lot, title in ((False, "little data"), (True, "a lot of data")):
        row = [("▶ " if (a_lot, alike) == marked else "  ") + cells[a_lot, alike] for alike in (True, False)]
        lines.append(f"{title:14}{row[0]:{width}}{row[1]}")
    return "\n".join(lines)
