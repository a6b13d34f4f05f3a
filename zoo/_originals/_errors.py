"""The error of every reader of foreign weight files."""


class OriginalFileError(ValueError):
    """A foreign weight file cannot be read or does not fit; the message says what came and what was expected."""
