"""Evaluate classifiers: metrics with intervals, the ledger, test-time averaging, and calibration."""
