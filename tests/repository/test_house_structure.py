"""Which part of the code may do what: rules that imports alone do not show."""

import ast
import re
from pathlib import Path

from zero_sizer.report.formats import FORMATS, reporter

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "zero_sizer"
RANKS = re.compile(r"world|(?<!num_)ranks|ranks?_per|gpus|nodes|dp_|hpz|processes|machines", re.I)
DIVIDES_RANKS = {
    "parallel.py",  # ranks by ranks
    "zero",  # elements by ranks
    "config/batch.py",  # a train batch by ranks, as DeepSpeed does
    "advise/batch.py",  # the same, backwards
    "simulator/patches",  # stands for code of DeepSpeed's
}


def modules(under=PACKAGE):
    """Path within the package -> syntax tree."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in sorted(under.rglob("*.py"))
    }


def operands(node):
    """What a whole-number division divides, and by what."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.FloorDiv | ast.Mod):
        is_text = isinstance(node.left, ast.Constant | ast.JoinedStr)
        return [] if is_text else [node.left, node.right]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return node.args if node.func.id in ("ceil_div", "divmod") else []
    if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.FloorDiv | ast.Mod):
        return [node.target, node.value]
    return []


def divisions_of_ranks(tree):
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if any(RANKS.search(ast.unparse(operand)) for operand in operands(node))
    ]


def test_ranks_are_divided_in_one_place():
    found = {
        name: hits
        for name, tree in modules().items()
        if not any(name == place or name.startswith(place + "/") for place in DIVIDES_RANKS)
        and (hits := divisions_of_ranks(tree))
    }
    assert not found, "ask zero_sizer.parallel.ParallelDims, or zero_sizer.zero.partition"


def test_a_division_of_ranks_is_seen():
    seen = "world_size // 8; divmod(n, job.ranks_per_node); ceil_div(numel, plan.dp_world_size)"
    assert len(divisions_of_ranks(ast.parse(seen))) == 3
    assert not divisions_of_ranks(ast.parse("'%d ranks' % n; numel // 2; (ranks - 1) / ranks"))


DATA_OF = ("activations", "ledger", "plan", "sizing", "timeline", "zero")


def test_reporters_get_a_finished_answer_and_compute_nothing():
    """From what computes they import types and constants, whose names begin with a capital."""
    found = [
        f"{name}: {node.module} {alias.name}"
        for name, tree in modules(PACKAGE / "report").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[1:]
        for alias in node.names
        if node.module.split(".")[1] in DATA_OF and not alias.name[0].isupper()
    ]
    assert not found, "let zero_sizer/answer.py compute it"


def test_few_modules_are_loose_and_architecture_names_every_room():
    loose = [path.name for path in PACKAGE.glob("*.py") if not path.name.startswith("__")]
    assert len(loose) <= 8, "a module has a room"
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [f"**{path.parent.name}/**" for path in PACKAGE.glob("*/__init__.py")]
    missing = [name for name in (*rooms, *loose) if name not in page]
    assert not missing, "say in docs/architecture.md what it is for"


def test_tests_stand_in_rooms_of_the_same_names():
    rooms = {path.stem for path in PACKAGE.iterdir()} | {"data", "repository", "support"}
    found = {path.parent.name for path in (ROOT / "tests").glob("*/*.py")}
    assert found <= rooms


def test_every_format_has_its_function():
    missing = [
        f"{answer} --format {name}: {function}"
        for answer, formats in FORMATS.items()
        for name, function in formats.items()
        if not callable(reporter(answer, name))
    ]
    assert not missing
