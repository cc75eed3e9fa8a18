"""Verdicts: on the numbers, and on what else every right pair does."""
