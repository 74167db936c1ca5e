"""Decides everything and touches nothing: no input or output, no clock, no randomness."""
