"""Documents: configs as text, and files that are never overwritten by mistake."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dist_sched.errors import ConfigError


def writer(path: str) -> Callable[[Mapping[str, Any]], str]:
    """Give what writes a config as text, by how a file's name ends.

    Raises:
        ConfigError: It ends otherwise.
    """
    found = _WRITERS.get(Path(path).suffix.lower())
    if found is None:
        raise ConfigError(f"{path}: the name must end in one of {', '.join(_WRITERS)}")
    return found


def to_yaml(told: Mapping[str, Any]) -> str:
    """Write a config as YAML."""
    import yaml

    return str(yaml.safe_dump(dict(told), sort_keys=False, allow_unicode=True))


def write(path: str, content: bytes, *, force: bool) -> None:
    """Write a new file; one that is there only by force.

    Raises:
        ConfigError: It is there, or the path is an address.
        OSError: It cannot be written.
    """
    if "://" in path:
        raise ConfigError(f"{path}: only local files are written; copy it there afterwards")
    try:
        with Path(path).open("wb" if force else "xb") as file:
            file.write(content)
    except FileExistsError as error:
        raise ConfigError(f"{path}: is there already; --force overwrites it") from error


def _to_json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, indent=2, ensure_ascii=False) + "\n"


def _to_toml(told: Mapping[str, Any]) -> str:
    """Write the outermost mappings as tables, what is in them in one line each."""
    plain = [_pair(name, value) for name, value in told.items() if not isinstance(value, Mapping)]
    tables = [
        "\n".join([f"\n[{_quoted(name)}]", *(_pair(*item) for item in value.items())])
        for name, value in told.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join([*plain, *tables]).lstrip() + "\n"


def _pair(name: str, value: Any) -> str:
    return f"{_quoted(name)} = {_inline(value)}"


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(_pair(name, item) for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    if isinstance(value, str):
        return _quoted(value, is_key=False)
    return json.dumps(value)


def _quoted(text: str, *, is_key: bool = True) -> str:
    is_bare = is_key and text.isascii() and text.replace("_", "").isalnum()
    return text if is_bare else json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


_WRITERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".yaml": to_yaml,
    ".yml": to_yaml,
    ".json": _to_json,
    ".toml": _to_toml,
}
