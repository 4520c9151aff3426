"""Why there is no figure."""


class BenchFailed(Exception):
    """There is no figure; the text says why."""
