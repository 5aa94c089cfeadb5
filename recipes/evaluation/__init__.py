"""How good a classifier is: metrics with intervals, the ledger, test-time averaging, calibration."""
