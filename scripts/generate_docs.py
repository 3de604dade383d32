"""Write docs/ledger.md from the declared entries, so that the page is the code.

    python scripts/generate_docs.py

Formulas are the entries' own source: a lambda's body, or a function that is one expression.
"""

import ast
import copy
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from zero_sizer.ledger import entries as features  # noqa: E402
from zero_sizer.ledger.entry import Entry  # noqa: E402
from zero_sizer.ledger.moments import IN_INFERENCE, RUNS, Moment  # noqa: E402

LOOP = 3  # entries that one loop declares and that are still written out
PAGE = ROOT / "docs" / "ledger.md"
HEAD = """# The ledger

Every allocation the prediction is made of, from the declarations in `zero_sizer/ledger/entries`,
written by `scripts/generate_docs.py`. `p` is the resolved plan (`zero_sizer/plan/plan.py`); sizes
are elements per rank. Sources that name no package are relative to `deepspeed/` at 0.19.8.
[model.md](model.md) explains the words.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(module) for module in feature_modules())])


def feature_modules() -> list[ModuleType]:
    """The feature files that declare entries, in the ledger's order."""
    names = (info.name for info in pkgutil.iter_modules(features.__path__))
    modules = [importlib.import_module(f"zero_sizer.ledger.entries.{name}") for name in names]
    positions = {id(entry): i for i, entry in enumerate(features.ENTRIES)}
    declaring = [module for module in modules if getattr(module, "ENTRIES", ())]
    return sorted(
        declaring, key=lambda module: positions.get(id(module.ENTRIES[0]), len(positions))
    )


def _section(module: ModuleType) -> str:
    title = module.__name__.rpartition(".")[2]
    about = (module.__doc__ or "").strip().splitlines()[0]
    blocks = [_block(family) for family in _families(module.ENTRIES)]
    return "\n".join([f"## {title}\n", f"{about}\n", *blocks])


def _families(entries: tuple[Entry, ...]) -> list[list[Entry]]:
    """Entries that one loop declares, together."""
    families: dict[Any, list[Entry]] = {}
    for entry in entries:
        code = getattr(entry.numel, "__code__", entry.name)
        families.setdefault((code, entry.category, entry.about), []).append(entry)
    return list(families.values())


def _block(family: list[Entry]) -> str:
    first = family[0]
    rows = {
        "category": first.category.value.replace("_", " "),
        "elements": _formulas(family, lambda e: e.numel),
        "dtype": _each(family, lambda e: _formula(e.dtype)),
        "device": _each(family, _device),
        "live": _each(family, lambda e: _live(e.live)),
        "when": _formulas(family, lambda e: e.when),
        "source": first.source,
    }
    if rows["when"] == "`True`":
        rows["when"] = "always"
    names = ", ".join(dict.fromkeys(f"`{entry.name}`" for entry in family))
    lines = [f"* {key}: {value}" for key, value in rows.items()]
    return "\n".join([f"### {names}\n", f"{first.about}\n", *lines, ""])


def _formulas(family: list[Entry], of: Callable[[Entry], Callable[..., Any]]) -> str:
    """Each one's formula; that of a long loop once, with the loop's own names."""
    if len(family) > LOOP:
        return f"`{ast.unparse(_expression(of(family[0]), fill=False))}`"
    return _each(family, lambda e: _formula(of(e)))


def _each(family: list[Entry], show: Callable[[Entry], str]) -> str:
    return " or ".join(dict.fromkeys(show(entry) for entry in family))


def _device(entry: Entry) -> str:
    device, pinned = _formula(entry.device), _formula(entry.pinned)
    place = device.replace("`Device.GPU`", "gpu").replace("`Device.HOST`", "host")
    place = place.replace("`Device.NVME`", "nvme")
    if pinned == "`False`":
        return place
    return f"{place}, pinned" if pinned == "`True`" else f"{place}, pinned if {pinned}"


def _live(live: Any) -> str:
    if callable(live):
        return _formula(live)
    if live & RUNS:
        present = [moment for moment in Moment if moment in live]
        is_all = live >= IN_INFERENCE
        return "all of inference" if is_all else ", ".join(f"'{m.value}'" for m in present)
    moments = [moment for moment in Moment if moment not in RUNS | {Moment.LOADED}]
    missing = [moment for moment in moments if moment not in live]
    if not missing:
        return "always"
    present = [moment for moment in Moment if moment in live]
    if Moment.LOADED in live:
        return ", ".join(f"'{moment.value}'" for moment in present)
    order = moments
    if present == order[order.index(present[0]) :] and len(present) > 1:
        return f"from '{present[0].value}' on"
    return ", ".join(f"'{moment.value}'" for moment in present)


def _formula(function: Callable[..., Any]) -> str:
    """A function's own source; its name and first line of documentation where it is long."""
    expression = None if hasattr(function, "__wrapped__") else _expression(function)
    if expression is not None:
        return f"`{ast.unparse(expression)}`"
    doc = inspect.getdoc(function)
    said = f": {doc.splitlines()[0].rstrip('.')}" if doc else ""
    return f"`{function.__name__}(p)`{said}"


def _expression(function: Callable[..., Any], *, fill: bool = True) -> ast.expr | None:
    """What a function returns, in terms of ``p``, if that is one expression."""
    node = _node(function)
    if isinstance(node, ast.Lambda):
        expression: ast.expr | None = node.body
    else:
        body = [n for n in node.body if not (isinstance(n, ast.Expr) and _is_text(n.value))]
        is_one = len(body) == 1 and isinstance(body[0], ast.Return)
        expression = body[0].value if is_one else None
    if expression is None:
        return None
    names = dict(_closed_over(function)) if fill else {}
    names[node.args.args[0].arg] = ast.Name("p")
    return _Fill(names).visit(copy.deepcopy(expression))


class _Fill(ast.NodeTransformer):
    """Puts what a function closes over in the place of its names."""

    def __init__(self, names: dict[str, Any]) -> None:
        self._names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """A value in the place of its name."""
        found = self._names.get(node.id)
        return found if isinstance(found, ast.expr) else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """The body of a closed-over function in the place of its call."""
        function = self._names.get(getattr(node.func, "id", ""))
        node.args = [self.visit(argument) for argument in node.args]
        node.keywords = [self.visit(keyword) for keyword in node.keywords]
        if not inspect.isfunction(function) or len(node.args) != 1:
            node.func = self.visit(node.func)
            return node
        body = _expression(function)
        return node if body is None else _Fill({"p": node.args[0]}).visit(body)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _node(function: Callable[..., Any]) -> ast.Lambda | ast.FunctionDef:
    """The syntax tree of a function: the innermost that holds all positions of its code."""
    code = inspect.unwrap(function).__code__
    spots = [(line, column) for line, _, column, _ in code.co_positions() if line and column]
    found = [node for node in _functions(code.co_filename) if _holds(node, code, spots)]
    return min(found, key=lambda node: (node.end_lineno - node.lineno, len(ast.unparse(node))))


def _holds(node: Any, code: Any, spots: list[tuple[int, int]]) -> bool:
    if isinstance(node, ast.FunctionDef) != (code.co_name != "<lambda>"):
        return False
    start, end = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
    return node.lineno == code.co_firstlineno and all(start <= spot < end for spot in spots)


@cache
def _functions(path: str) -> list[ast.Lambda | ast.FunctionDef]:
    tree = ast.parse(Path(path).read_text())
    return [node for node in ast.walk(tree) if isinstance(node, ast.Lambda | ast.FunctionDef)]


def _closed_over(function: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """Names a function takes from elsewhere: numbers of its module, values and functions."""
    closed = inspect.getclosurevars(function)
    for name, value in closed.globals.items():
        if isinstance(value, int | tuple | frozenset) and name.isupper():
            yield name, _shown(value)
    for name, value in closed.nonlocals.items():
        yield name, value if inspect.isfunction(value) else _shown(value)


def _shown(value: Any) -> ast.expr:
    if isinstance(value, frozenset):
        value = tuple(item for item in Moment if item in value)
    if isinstance(value, tuple):
        return ast.Tuple([_shown(item) for item in value])
    text = str(value) if isinstance(value, Enum) else repr(value)
    return ast.parse(text, mode="eval").body


if __name__ == "__main__":
    main()
