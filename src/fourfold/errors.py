"""The errors a user can cause: the command line prints the message alone and exits with 1."""


class FourfoldError(Exception):
    """Base of every error with a message written for the user."""


class InputError(FourfoldError, ValueError):
    """A value, file or combination of them that can't be used."""


class DivergenceError(FourfoldError, RuntimeError):
    """Training left the finite numbers."""


class WriteError(FourfoldError, OSError):
    """A file that can't be written where it belongs: a full disk, a folder that refuses it."""
