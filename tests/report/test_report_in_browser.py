"""The HTML report as Chromium shows it: on a screen, on a phone, in the dark and on paper."""

import json

import pytest
from support.site_browser import PATIENCE, chromium, contrasts

from zero_sizer import cli

pytestmark = pytest.mark.slow

CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "train_micro_batch_size_per_gpu": 4,
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
}
ASKED = ("--model", "llama-3-8b", "--gpu", "a100-80gb", "--gpus-per-node", "8", "--seq-len", "4096")
SHOWN = """[...document.querySelectorAll(".drawing text")]
  .map((text) => text.getBoundingClientRect()).filter((box) => box.height)"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    config, report = folder / "ds.json", folder / "r.html"
    config.write_text(json.dumps(CONFIG))
    words = ["check", str(config), *ASKED, "--host-memory", "1TiB", "--format", "html"]
    assert cli.main([*words, "--output", str(report)]) in (0, 1, 3)
    with chromium() as browser:
        page = browser.new_page()
        page.set_default_timeout(PATIENCE)
        page.asked = []
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(report.as_uri())
        yield page
        assert page.asked == [report.as_uri()]


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize(
    ("media", "scheme"), [("screen", "light"), ("screen", "dark"), ("print", "light")]
)
def test_pictures_and_their_text_are_read_everywhere(report, media, scheme, width):
    report.set_viewport_size({"width": width, "height": 800})
    report.emulate_media(media=media, color_scheme=scheme)
    assert report.evaluate("document.documentElement.scrollWidth") <= width
    kind = "narrow" if width < 720 else "wide"
    texts = report.evaluate(SHOWN)
    assert len(texts) >= 6  # of the axes of two devices
    for box in texts:
        assert 12 <= box["height"] <= 24
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    read = ["h1", "h2", "small", "th", ".map td", ".legend li", f".drawing .{kind} text"]
    assert {k: v for k, v in contrasts(report, read).items() if v < 4.5} == {}
    colours = report.evaluate(
        f"[...document.querySelectorAll('.drawing .{kind} .series path')]"
        ".map((path) => getComputedStyle(path).fill)"
    )
    assert len({colour for colour in colours if colour != "none"}) >= 4  # a colour a phase


def test_swatches_have_the_colour_of_what_they_stand_for(report):
    report.emulate_media(media="screen", color_scheme="light")
    found = report.evaluate(
        """["forward", "backward", "part-0", "part-1"].map((kind) => [
          getComputedStyle(document.querySelector(`.swatch.${kind}`)).backgroundColor,
          getComputedStyle(document.querySelector(`.series.${kind} :is(path, rect)`)).fill,
        ])"""
    )
    assert all(swatch == drawn for swatch, drawn in found)
