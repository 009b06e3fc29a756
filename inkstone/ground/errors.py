"""What goes wrong, and whose fault it is.

An `InkstoneError` is the caller's to mend: a wrong option, a broken file, a missing package. Its message says what
came, what is valid and what to do, and the doors (command line, HTTP) print it without a traceback: exit code 2, or
a 4xx answer. Everything else is our fault and keeps its traceback: exit code 1, or a 500.

Problems of one file or one configuration are collected and raised once (`raise_all`), so nobody has to mend the same
file five times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.util import find_spec


class InkstoneError(Exception):
    """The caller's mistake: one clear message, no traceback. problems: the single ones, where it tells of several."""

    problems: tuple[str, ...] = ()


class ConfigError(InkstoneError):
    """An option or a configuration that is not valid."""


class DataError(InkstoneError):
    """A data file that cannot be read as what it should be."""


class BundleError(InkstoneError):
    """A model folder that is missing, incomplete, altered or foreign."""


class TrainingError(InkstoneError):
    """Training that cannot go on with what it was given."""


class MissingPackage(InkstoneError):
    """A part of Inkstone whose packages are not installed."""


class OutputError(InkstoneError):
    """Something that could not be written: no space, no permission, already there."""


def not_known(what: str, came: object, valid: Iterable[object]) -> str:
    """The sentence for a choice that does not exist.

    >>> not_known("positions", "rotry", ["learned", "rotary"])
    'positions="rotry" is not known. Valid: learned, rotary. Did you mean "rotary"?'
    """
    names = [str(name) for name in valid]
    close = get_close_matches(str(came), names, n=1)
    hint = f' Did you mean "{close[0]}"?' if close else ""
    return f'{what}="{came}" is not known. Valid: {", ".join(names)}.{hint}'


def raise_all(kind: type[InkstoneError], title: str, problems: Sequence[str]) -> None:
    """Raise one error that lists every problem; return quietly when there is none."""
    if not problems:
        return
    listed = "\n".join(f"  - {problem}" for problem in problems)
    several = f"{title}: {len(problems)} problems\n{listed}"
    error = kind(f"{title}: {problems[0]}" if len(problems) == 1 else several)
    error.problems = tuple(problems)
    raise error


class Collected:
    """What several checks found, raised as one error, so that all of it can be mended before the next try.

    >>> found = Collected("recipe")
    >>> with found.check():
    ...     raise ConfigError("name is empty.")
    >>> found.raise_all()
    Traceback (most recent call last):
    inkstone.ground.errors.ConfigError: name is empty.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.errors: list[InkstoneError] = []

    @contextmanager
    def check(self) -> Iterator[None]:
        """What the block raises as the caller's mistake is kept, and what comes after the block goes on."""
        try:
            yield
        except InkstoneError as error:
            self.errors.append(error)

    def raise_all(self) -> None:
        """Raise the one error as it is, several as one ConfigError; return quietly when there is none.

        What several checks came upon is one error.
        """
        if len({str(error) for error in self.errors}) == 1:
            raise self.errors[0]
        problems = [problem for error in self.errors for problem in (error.problems or (str(error),))]
        raise_all(ConfigError, self.title, list(dict.fromkeys(problems)))


def require(package: str, purpose: str, extra: str) -> None:
    """Say how to install what is missing, instead of an ImportError from the depths.

    >>> require("no_such_package", "training", "train")
    Traceback (most recent call last):
    inkstone.ground.errors.MissingPackage: training needs no_such_package, which is not installed. ...
    """
    if find_spec(package) is None:
        raise MissingPackage(
            f'{purpose} needs {package}, which is not installed. Run: pip install "inkstone[{extra}]"'
        )
