"""Thoughts → what a lens reads in them. See `thoughts`, `collect`, `targets`, `lens`, `fit`."""
