"""SQL lives in `.sql` files, under names: `-- name: upsert_job` begins a statement."""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

_NAME: Final = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_MIGRATION: Final = re.compile(r"(\d{4})_\w+\.sql")


def load_queries() -> dict[str, str]:
    """Return the statements of `sql/*.sql` by name."""
    queries: dict[str, str] = {}
    for entry in (resources.files(__package__) / "sql").iterdir():
        _, *named = _NAME.split(entry.read_text(encoding="utf-8"))
        for name, statement in zip(named[::2], named[1::2], strict=True):
            if name in queries:
                raise AssertionError(f"two statements are called {name}")
            queries[name] = statement.strip().removesuffix(";")
    return queries


def load_migrations() -> list[str]:
    """Return the migrations in order: the one at index n leads from version n to version n + 1."""
    found: dict[int, str] = {}
    for entry in (resources.files(__package__) / "migrations").iterdir():
        match = _MIGRATION.fullmatch(entry.name)
        if match is not None:
            found[int(match[1])] = entry.read_text(encoding="utf-8")
    if sorted(found) != list(range(1, len(found) + 1)):
        raise AssertionError(f"migrations are not numbered 1, 2, 3 …: {sorted(found)}")
    return [found[number] for number in sorted(found)]
