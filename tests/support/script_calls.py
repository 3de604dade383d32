"""Calls that a script makes to packages, by their full names and keywords."""

import ast
import builtins
from pathlib import Path

_PLAIN = frozenset(("append", "endswith", "join", "size", "startswith", "strip"))  # of any object


def calls(path: Path) -> dict[str, list[str]]:
    """Name -> keywords, each sorted; methods of objects begin with a dot.

    Names are those that imports give, so ``F.relu`` is ``torch.nn.functional.relu``. Builtins, the
    script's own functions and what its variables hold are left out.
    """
    tree = ast.parse(path.read_text())
    imported = _imported(tree)
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    own = {node.name for node in ast.walk(tree) if isinstance(node, kinds)} | set(dir(builtins))
    found: dict[str, set[str]] = {}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func, imported)
        if name is not None and name.lstrip(".") not in own | _PLAIN:
            found.setdefault(name, set()).update(k.arg for k in node.keywords if k.arg)
    return {name: sorted(found[name]) for name in sorted(found)}


def _imported(tree: ast.AST) -> dict[str, str]:
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                whole = alias.name if alias.asname else alias.name.partition(".")[0]
                found[alias.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _name(node: ast.expr, imported: dict[str, str]) -> str | None:
    """Of a function that is called; None where it is no name and no attribute."""
    if isinstance(node, ast.Name):
        return imported.get(node.id)  # else a variable's
    if not isinstance(node, ast.Attribute):
        return None
    parts: list[str] = []
    of: ast.expr = node
    while isinstance(of, ast.Attribute):
        parts.append(of.attr)
        of = of.value
    if isinstance(of, ast.Name) and of.id in imported:
        return ".".join([imported[of.id], *reversed(parts)])
    return f".{node.attr}"
