"""Packages that only some functions need: ``pip install snipkit`` brings torch and numpy alone."""

import importlib
from types import ModuleType


def optional(package: str) -> ModuleType:
    """Import a package when a function needs it.

    Raises:
        ModuleNotFoundError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise  # the package is there, and something that it needs is not
        message = f"this function needs the package {package}: pip install {package}"
        raise ModuleNotFoundError(message, name=package) from error
