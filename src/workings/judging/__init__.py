"""Readings and outcomes → controls, scores, intervals, verdicts. Nothing is read that a control reads as well."""
