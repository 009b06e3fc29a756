"""Several checks, one message: what more than one of them came upon is said once, as the error it is."""

from __future__ import annotations

import pytest

from inkstone.ground.errors import BundleError, Collected, ConfigError


def collected(*errors: Exception) -> Collected:
    found = Collected("recipe")
    for error in errors:
        with found.check():
            raise error
    return found


def test_nothing_and_one_and_several() -> None:
    collected().raise_all()
    with pytest.raises(BundleError, match=r"^no model$"):
        collected(BundleError("no model")).raise_all()
    with pytest.raises(ConfigError, match="2 problems"):
        collected(BundleError("no model"), ConfigError("no name")).raise_all()


def test_the_same_twice_is_one() -> None:
    with pytest.raises(BundleError, match=r"^no model$"):
        collected(BundleError("no model"), BundleError("no model")).raise_all()
