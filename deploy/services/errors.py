"""What goes wrong with a service."""


class ServiceError(Exception):
    """A service cannot be fetched, does not start or does not answer; the text says why, and where its log is."""
