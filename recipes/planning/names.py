"""Names of the ready-made recipes."""

NAMES = ("probe", "few", "all", "scratch")
