"""The errors a user can cause: the command line prints the message alone and exits with 1."""

from numbers import Integral
from typing import Any


def printable(text: str) -> str:
    """Return text from a file as any terminal takes it: control characters as their escapes."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


class FourfoldError(Exception):
    """Base of every error with a message written for the user, printable whatever it quotes."""

    def __str__(self) -> str:
        """Return the message; what it quotes of a file sends nothing to a terminal."""
        return printable(super().__str__())


class InputError(FourfoldError, ValueError):
    """A value, file or combination of them that can't be used."""


def check_count(name: str, value: Any, least: int = 0) -> None:
    """Refuse what is no whole number from `least` on."""
    if not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} is {value!r}; it must be a whole number, at least {least}.")


def check_callable(**given: Any) -> None:
    """Refuse what is neither None nor can be called, by the name that it is given."""
    for name, value in given.items():
        if value is not None and not callable(value):
            raise InputError(f"{name} is {value!r}; it must be a function, or None.")


class DivergenceError(FourfoldError, RuntimeError):
    """Training left the finite numbers."""


class WriteError(FourfoldError, OSError):
    """A file that can't be written where it belongs: a full disk, a folder that refuses it."""
