"""What a person asked for and cannot get."""


class Mistake(Exception):
    """One line for the person; exit status 1."""
