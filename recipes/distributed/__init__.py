"""Trainings on several hosts."""
