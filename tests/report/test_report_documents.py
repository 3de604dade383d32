"""Reports to share: Markdown for a pull request, and one HTML file that needs nothing else."""

import json
import re
import sys
from html import unescape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from zero_sizer import cli
from zero_sizer.units import GIB, format_gib

CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "train_micro_batch_size_per_gpu": 4,
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
}
ASKED = ("--model", "llama-3.2-1b", "--gpu", "a100-40gb", "--gpus-per-node", "2", "--seq-len")
ASKED = (*ASKED, "2048", "--checkpointing", "--attention", "sdpa", "--host-memory", "200GiB")
VOID = {"meta", "br", "link", "path", "use", "rect", "wbr"}


class Page(HTMLParser):
    """Elements, text and links of a page; every element is closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.rows, self.loads = [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.loads += [v for k, v in attributes if k in ("src", "href", "data", "action") and v]

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open[-2:]):
            self.rows[-1][-1] += data


@pytest.fixture
def ask(tmp_path, capsys):
    def asked(*arguments, config=CONFIG, model=None):
        path = tmp_path / "ds.json"
        path.write_text(json.dumps(config))
        said = ASKED if model is None else ("--model", model, *ASKED[2:])
        code = cli.main(["check", str(path), *said, *arguments])
        return code, capsys.readouterr().out

    return asked


def test_a_page_is_whole_and_loads_nothing(ask):
    code, text = ask("--format", "html")
    page = Page(text)
    assert code == 0
    assert page.open == []
    assert not [link for link in page.loads if not link.startswith("#")]
    assert not re.search(r"url\((?!#)|@import|<script", text)
    assert ("header", {"class": "verdict fits"}) in page.tags


def test_a_page_says_what_the_json_says(ask):
    _, text = ask("--format", "html")
    answer = json.loads(ask("--format", "json")[1])
    page = Page(text)
    cells = {cell.strip() for row in page.rows for cell in row}
    gpu = answer["devices"]["gpu"]
    sizes = [gpu["peak_bytes"], gpu["low_bytes"], gpu["high_bytes"], gpu["capacity_bytes"]]
    live = [a for a in answer["allocations"] if gpu["peak_phase"] in a["phases"]]
    assert {format_gib(size) for size in sizes} <= cells
    assert {a["name"] for a in live if a["device"] == "gpu" and a["num_bytes"] > 2**20} <= cells
    said = " ".join(" ".join(page.words).split())
    for finding in answer["findings"]:
        assert f"[{finding['code']}]" in said


@pytest.mark.slow
def test_the_map_holds_the_verdicts_of_check(ask):
    _, text = ask("--format", "html")
    page = Page(text)
    heads = next(row for row in page.rows if row[0] == "micro batch")
    words = {"fits": "fits", "uncertain": "?", "does_not_fit": "too large"}
    seen = set()
    for row in page.rows[page.rows.index(heads) + 1 :][:6]:
        for head, cell in list(zip(heads, row, strict=True))[1::2]:
            config = CONFIG | {"train_micro_batch_size_per_gpu": int(row[0])}
            _, out = ask("--format", "json", "--nodes", head.split()[0], config=config)
            word = words[json.loads(out)["verdict"]]
            assert cell.split("(")[0].startswith(word)
            seen.add(word)
    assert len(seen) >= 2  # else the map tells nothing


def drawings(text):
    """SVG pictures of a page, each as a screen and as a phone show it, parsed."""
    for around in re.findall(r'<div class="drawing".*?</div>\n</div>', text, re.DOTALL):
        pictures = re.findall(r"<svg.*?</svg>", around, re.DOTALL)
        yield tuple(re.sub(r' xmlns="[^"]*"', "", picture) for picture in pictures)


def series(picture):
    """Class of each series -> its groups."""
    found = {}
    for group in picture.iter("g"):
        if group.get("class", "").startswith("series "):
            found.setdefault(group.get("class").split()[1], []).append(group)
    return found


def read_off(picture):
    """Height in the picture -> GiB, by the labels of its axis."""
    ticks = {}
    for guide in picture.iter("g"):
        if guide.get("class") == "guides":
            height = float(re.match(r"M0\.0+ ([\d.]+) h", guide.find("path").get("d"))[1])
            number, unit = guide.find("text").text.split()
            assert unit == "GiB"
            ticks[float(number)] = height
    assert 3 <= len(ticks) <= 9
    (low, below), *_, (high, above) = sorted(ticks.items())
    assert low == 0
    return lambda height: (height - below) * high / (above - below)


def columns(picture):
    """Sizes of all columns of a timeline in GiB, from left to right."""
    value = read_off(picture)
    for kind, groups in series(picture).items():
        for path in (path for group in groups for path in group.findall("path")):
            if kind == "capacity":
                continue
            numbers = list(map(float, re.findall(r"[\d.]+", path.get("d"))))
            corners = list(zip(numbers[::2], numbers[1::2], strict=True))[1:-1]
            for (left, one), (right, other) in zip(corners[::2], corners[1::2], strict=True):
                assert right > left
                assert one == other
                yield value(one)


def test_a_picture_shows_every_place_of_the_step_at_its_size(ask):
    _, text = ask("--format", "html")
    answer = json.loads(ask("--format", "json", "--timeline")[1])
    found = list(drawings(text))
    for device, timeline in zip(("gpu", "host"), found[::2], strict=True):
        points = [point["num_bytes"] / GIB for point in answer["timeline"][device]]
        phases = [point["phase"] for point in answer["timeline"][device]]
        for picture in map(ElementTree.fromstring, timeline):
            assert list(columns(picture)) == pytest.approx(points, abs=1e-4 * max(points))
            drawn = [kind for kind in series(picture) if kind not in ("capacity", "peak")]
            assert drawn == list(dict.fromkeys(phases))
            (peak,) = picture.iter("circle")
            assert read_off(picture)(float(peak.get("cy"))) == pytest.approx(max(points), rel=1e-4)
    figures = re.findall(r"<figure.*?</figure>", text, re.DOTALL)
    for device, keys in zip(("gpu", "host"), figures, strict=True):
        assert format_gib(answer["devices"][device]["peak_bytes"]) in keys
        assert format_gib(answer["devices"][device]["capacity_bytes"]) in keys
        assert 'aria-label="' in keys.partition(">")[0]
    near = series(ElementTree.fromstring(found[0][0]))["capacity"][0].find("path").get("d")
    height = float(re.search(r" ([\d.]+)$", near)[1])
    capacity = answer["devices"]["gpu"]["capacity_bytes"] / GIB
    assert read_off(ElementTree.fromstring(found[0][0]))(height) == pytest.approx(
        capacity, rel=1e-4
    )
    assert ask("--format", "html")[1] == text  # the same answer is the same file


def test_a_bar_shows_what_the_peak_consists_of(ask):
    _, text = ask("--format", "html")
    answer = json.loads(ask("--format", "json")[1])
    for device, ranks, bars in zip(
        ("gpu", "host"), (1, 2), list(drawings(text))[1::2], strict=True
    ):
        found = answer["devices"][device]
        live = [
            (a["num_bytes"] + a["rounding_bytes"]) * ranks
            for a in answer["allocations"]
            if a["device"] == device and found["peak_moment"] in a["moments"]
        ]
        sizes = sorted(live, reverse=True)
        assert sum(sizes) == found["peak_bytes"]
        for picture in map(ElementTree.fromstring, bars):
            boxes = [bar for bar in picture.iter("rect") if "rect" in bar.get("class")]
            widths = [float(bar.get("width")) for bar in boxes]
            assert [width / sum(widths) for width in widths] == pytest.approx(
                [size / sum(sizes) for size in sizes], abs=1e-4
            )
            told = [d.text for d in picture.iter("desc") if d.get("class") == "value"]
            assert told == [f"{size / GIB:.6g} GiB" for size in sizes]


def test_a_picture_brings_no_style_script_or_date_of_its_own(ask):
    _, text = ask("--format", "html")
    (body,) = re.findall(r"<body.*</body>", text, re.DOTALL)
    assert "<svg" in body
    for strange in ("<style", "<script", "style=", "<!--", "<title>Pygal", "pygal"):
        assert strange not in body


def test_a_page_without_the_library_says_how_to_get_it(ask, monkeypatch, capsys):
    for name in ("pygal", "jinja2"):
        with monkeypatch.context() as patched:
            patched.setitem(sys.modules, name, None)
            assert ask("--format", "html")[0] == 2
            assert ask("--format", "markdown")[0] == 0


@pytest.mark.slow
def test_a_choice_is_laid_out_with_its_config(tmp_path, capsys):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    said = {}
    for form in ("json", "html", "markdown"):
        code = cli.main(["choose", str(path), *ASKED, "--format", form])
        said[form] = capsys.readouterr().out
        assert code == 0
    answer, page = json.loads(said["json"]), Page(said["html"])
    assert page.open == []
    plans = [row[0] for row in page.rows if len(row) >= 6][1:]
    assert plans == [answer["chosen"]["strategy"], *(p["strategy"] for p in answer["runners_up"])]
    (config,) = re.findall(r"<pre.*?<code>(.*?)</code>", said["html"], re.DOTALL)
    assert json.loads(unescape(config)) == answer["config"]
    (config,) = re.findall(r"```\n(.*?)```", said["markdown"], re.DOTALL)
    assert json.loads(config) == answer["config"]
    assert (
        cli.main(["choose", str(path), *ASKED, "--largest", "micro-batch", "--format", "html"]) == 2
    )
    assert "take text or json" in capsys.readouterr().err


def _cells(text):
    """Rows of the tables of Markdown."""
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in re.findall(r"^\|.*\|$", text, re.MULTILINE)
    ]
    return [[cell.strip() for cell in row] for row in rows]


@pytest.mark.slow
def test_the_sizes_of_a_cluster_are_laid_out(tmp_path, capsys):
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    said = {}
    for form in ("json", "html", "markdown"):
        words = ["size", str(path), *ASKED, "--max-nodes", "4", "--tokens", "1B"]
        assert cli.main([*words, "--format", form]) == 0
        said[form] = capsys.readouterr().out
    answer, page = json.loads(said["json"]), Page(said["html"])
    assert page.open == []
    assert ("header", {"class": "verdict fits"}) in page.tags
    for rows in (
        [[" ".join(c.split()) for c in row] for row in page.rows],
        _cells(said["markdown"]),
    ):
        every = [row for row in rows if len(row) == 8 and row[0].isdigit()]
        sizes = [row for row in every if row[1] == str(2 * int(row[0]))]
        assert [row[:2] for row in every if row not in sizes] == [["1", "1"]]  # part of a node
        assert len(sizes) >= 3
        of = {size["nodes"]: size for size in answer["sizes"]}
        for row in sizes:
            size = of[int(row[0])]
            assert row[2] == size["best"]["strategy"]
            assert row[5] == f"{size['best']['tokens_per_second']:,.0f}"
        told = {
            row[0]: row[1] for row in rows if row[0] in {f["strategy"] for f in answer["fewest"]}
        }
        for found in answer["fewest"]:
            plan = found["plan"]
            assert told[found["strategy"]].startswith(str(plan["nodes"]) if plan else "none")
        assert sum(row[0].isdigit() for row in rows) >= 2 * len(sizes)  # and the curve


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("choose",), "text"),
        (("choose",), "markdown"),
        (("choose", "--largest", "micro-batch"), "json"),
        (("size", "--max-nodes", "1"), "html"),
    ],
)
def test_a_search_goes_to_a_file_whole(tmp_path, capsys, words, named):
    path, target = tmp_path / "ds.json", tmp_path / "answer"
    path.write_text(json.dumps(CONFIG))
    line = [words[0], str(path), *ASKED, *words[1:], "--format", named]
    code = cli.main(line)
    printed = capsys.readouterr().out
    assert (cli.main([*line, "--output", str(target)]), code) == (0, 0)
    said = capsys.readouterr().out
    assert said.endswith(f"   written to {target}\n")
    assert said.startswith("largest micro-batch: " if "--largest" in words else "FITS   ")
    assert target.read_text() == printed
    assert cli.main([*line, "--output", str(path)]) == 2  # CONFIG itself
    assert json.loads(path.read_text()) == CONFIG


def test_an_answer_and_a_config_are_two_files(tmp_path, capsys):
    target = tmp_path / "both.json"
    words = ["choose", *ASKED, "--output", str(target), "--emit", str(target)]
    assert cli.main(words) == 2
    assert "is the file of --output, too" in capsys.readouterr().err
    assert not target.exists()


def test_nothing_that_a_file_says_is_markup(ask, tmp_path):
    folder = tmp_path / "<img src=x onerror=alert(1)>|@everyone"
    folder.mkdir()
    config = {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": 128,
    }
    (folder / "config.json").write_text(json.dumps(config))
    odd = CONFIG | {"<b>bold</b>": 1, "a|b": 2}
    _, page = ask("--format", "html", config=odd, model=str(folder))
    assert "img" not in {tag for tag, _ in Page(page).tags}
    assert "b" not in {tag for tag, _ in Page(page).tags}
    _, text = ask("--format", "markdown", config=odd, model=str(folder))
    assert not re.search(r"(?<!\\)<img|(?<!\\)<b>|@everyone", text)


def test_markdown_tables_have_as_many_cells_as_heads(ask):
    code, text = ask("--format", "markdown")
    assert code == 0
    assert text.startswith("**FITS**: at least ")
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    assert len(tables) >= 2
    for table in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(widths) == 1


@pytest.mark.slow
@pytest.mark.parametrize("named", ["text", "json", "markdown", "html"])
def test_an_answer_goes_to_a_file_whole(ask, tmp_path, named):
    target = tmp_path / "answer"
    code, printed = ask("--format", named)
    again, said = ask("--format", named, "--output", str(target))
    assert (again, said) == (code, f"FITS   written to {target}\n")
    written = re.sub(r" --output \S+", "", target.read_text())
    assert written == printed


def test_what_cannot_be_written_is_said_before_any_work(ask, tmp_path, capsys):
    assert ask("--output", str(tmp_path / "no" / "answer"))[0] == 2
    assert ask("--output", str(tmp_path))[0] == 2
    before = json.dumps(CONFIG)
    assert ask("--output", str(tmp_path / "ds.json"))[0] == 2
    assert (tmp_path / "ds.json").read_text() == before


def test_what_does_not_fit_shows_what_would(ask):
    long = CONFIG | {"train_micro_batch_size_per_gpu": 64}
    code, text = ask("--format", "markdown", config=long)
    assert code == 1
    assert text.startswith("**DOES NOT FIT**: each GPU is ")
    assert "### What would make it fit" in text
    code, text = ask("--format", "html", config=long)
    assert ("header", {"class": "verdict does_not_fit"}) in Page(text).tags
