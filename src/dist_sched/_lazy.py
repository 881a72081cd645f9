"""Importing public names on first use, so that importing a package stays fast."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def find(name: str, package: str, modules: Mapping[str, str], namespace: dict[str, Any]) -> Any:
    """Import a public name of a package, for the package's `__getattr__`.

    Args:
        name: The name, which may be the name of a module itself.
        package: Name of the package.
        modules: The module of each public name.
        namespace: The package's `globals()`, which keep the name.

    Raises:
        AttributeError: The name is not a public one.
    """
    if name not in modules:
        message = f"module {package!r} has no attribute {name!r}"
        raise AttributeError(message)
    module = importlib.import_module(f"{package}.{modules[name]}")
    found = module if name == modules[name] else getattr(module, name)
    namespace[name] = found
    return found
