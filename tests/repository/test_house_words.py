"""Plain English: docstrings that stand alone, and text that names what exists."""

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
OPENING = re.compile(r"(The same|Those|What|Whether|As ``\w+``,|It|This)\b")
CITED = re.compile(r"\b(?:tests|docs|scripts|benchmarks)/[\w./-]*\w")
MADE = ("benchmarks/results.md",)  # may be cited before it is written
NUMBERS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)


def test_docstrings_stand_alone():
    """A first sentence begins with a verb or a noun of the field, and needs no neighbour."""
    found = []
    for path in sorted((ROOT / "zero_sizer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module
            if not isinstance(node, kinds) or getattr(node, "name", "")[:1] == "_":
                continue
            text = ast.get_docstring(node) or ""
            if OPENING.match(text):
                found.append(f"{path.relative_to(ROOT)}: {text.splitlines()[0]}")
    assert not found


UNCLEAR = (
    *("^there is$", "short of, at least", "micro steps", "with checkpointing"),
    *("says nothing new", "errors are mended"),
)
"""New users stumbled over these: capacity, shortfall, gradient accumulation steps, activation
checkpointing, the same as ZeRO-3 on one node, corrected."""


def test_what_is_printed_has_the_words_of_the_field():
    found = []
    for path in sorted((ROOT / "zero_sizer").rglob("*.py")):
        text = path.read_text()
        if not re.search("|".join(word.strip("^$") for word in UNCLEAR), text):
            continue
        tree = ast.parse(text)
        alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):  # what stands alone is a docstring
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and id(node) not in alone and " " in node.value.strip():
                words = [word for word in UNCLEAR if re.search(word, node.value)]
                found += [f"{path.relative_to(ROOT)}:{node.lineno}: {word}" for word in words]
    assert not found


def texts():
    """Path -> text of every file under version control that a person reads."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        path = ROOT / name
        if path.suffix in (".py", ".md", "") and "data" not in path.parts and path.is_file():
            yield name, path.read_text(encoding="utf-8", errors="replace")


def test_files_that_are_cited_exist():
    missing = {
        f"{name}: {cited}"
        for name, text in texts()
        for cited in CITED.findall(text)
        if not name.startswith("tests/")  # tests make files up
        and cited not in MADE
        and not (ROOT / cited).exists()
        and not list(ROOT.glob(cited + "*"))
        and not re.search(r"(https?://\S*|site-packages/|\w/)" + re.escape(cited), text)
    }
    assert not missing


def test_every_page_is_linked_from_somewhere():
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    linked = {
        Path(target).name
        for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"))
        for target in re.findall(r"\]\(([^)#:]+\.md)", path.read_text())
        if Path(target).name != path.name
    }
    assert pages <= linked


def test_the_glossary_gives_each_word_one_meaning():
    rows = re.findall(r"^\| ([^|]+) \| ", (ROOT / "docs" / "glossary.md").read_text(), re.M)
    words = [row for row in rows if row != "word"]
    assert words == sorted(set(words), key=str.lower)


def test_the_page_counts_moments_as_the_ledger_has_them():
    from zero_sizer.ledger.moments import Moment, Phase

    text = (ROOT / "docs" / "model.md").read_text()
    said = re.search(r"added up at (\w+) instants\. Init has (\w+):.*?step has (\w+):", text, re.S)
    of = {phase: sum(moment.phase is phase for moment in Moment) for phase in Phase}
    counted = (len(Moment), of[Phase.INIT], of[Phase.STEP])
    assert said is not None
    assert tuple(map(NUMBERS.index, said.groups())) == counted
