"""The page in a real browser: its answers are those of the command line, to the byte."""

import json
import shlex
import sys
from pathlib import Path

import pytest
from support.site_browser import (
    PATIENCE,
    START,
    Server,
    chromium,
    contrasts,
    require_pyodide,
    unnamed,
)

from zero_sizer import cli
from zero_sizer.report.verdict import WORDS

pytestmark = pytest.mark.slow

CONFIG = {
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 4,
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW", "params": {"lr": 1e-5}},
    "zero_optimization": {"stage": 3, "offload_optimizer": {"device": "cpu"}},
}
MODEL = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
    "max_position_embeddings": 4096,
    "torch_dtype": "bfloat16",
}
DONE = "#said[aria-busy=false]"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    words = ["page", "--output", str(folder), "--pyodide", str(require_pyodide())]
    assert cli.main(words) == 0
    server = Server(folder)
    server.folder = folder
    yield server
    server.close()


@pytest.fixture(scope="module")
def page(server):
    """The page, its engine started: once for all tests."""
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(PATIENCE)
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda line: line.type == "error" and page.problems.append(line.text))
        page.goto(server.url)
        page.get_by_text("Ready.").wait_for(timeout=START)
        yield page


@pytest.fixture(autouse=True)
def nothing_went_wrong(page):
    page.set_viewport_size({"width": 1280, "height": 900})
    page.get_by_role("button", name="Fill in an example").click()
    page.problems.clear()
    yield
    assert page.problems == []


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """What a command of the page prints where somebody types it."""

    def typed(line, files=()):
        for name, text in dict(files).items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        monkeypatch.chdir(tmp_path)
        words = shlex.split(line)
        monkeypatch.setattr(sys, "argv", words)
        capsys.readouterr()
        cli.main(words[1:])
        return capsys.readouterr()

    return typed


def unfold(page, title):
    details = page.locator("details", has=page.get_by_text(title, exact=True))
    if details.get_attribute("open") is None:
        page.get_by_text(title, exact=True).click()


def press(page, name):
    """Presses a button, and waits for the answer."""
    page.locator("#said").evaluate("element => element.setAttribute('aria-busy', 'true')")
    page.get_by_role("button", name=name, exact=True).click()
    answered(page)


def answered(page):
    page.wait_for_selector(DONE, state="attached")
    assert "should not happen" not in page.inner_text("#alert")
    return page.locator("#said h1").inner_text() if page.locator("#said h1").count() else ""


def saved(page, name):
    with page.expect_download() as download:
        page.get_by_role("button", name=name, exact=True).click()
    return Path(download.value.path()).read_text()


def shown_by_a_terminal(page):
    unfold(page, "As a terminal shows it")
    page.wait_for_selector("#text:not(:empty)")
    return page.locator("#text").evaluate("element => element.textContent")


def test_check_is_that_of_the_command_line_to_the_byte(page, shell):
    page.get_by_label("DeepSpeed config", exact=True).fill(json.dumps(CONFIG, indent=2))
    unfold(page, "or its config.json")
    page.get_by_label("The model's config.json").fill(json.dumps(MODEL))
    page.get_by_label("Sequence length in tokens").fill("4096")
    page.get_by_label("Memory of a node's host").fill("512GiB")
    unfold(page, "More to state")
    page.get_by_label("Attention", exact=True).select_option("flash")
    page.get_by_label("Tokens", exact=True).fill("2B")
    press(page, "Check it")
    line = page.locator("#command").inner_text()
    assert "--model model/config.json" in line
    assert "--attention flash" in line
    files = {"ds.json": json.dumps(CONFIG, indent=2), "model/config.json": json.dumps(MODEL)}
    assert shown_by_a_terminal(page) == shell(line, files).out
    assert saved(page, "Save this report") == shell(f"{line} --format html").out
    assert saved(page, "Save as JSON") == shell(f"{line} --format json --timeline").out


def test_the_best_plan_is_that_of_the_command_line_and_can_be_taken_over(page, shell):
    press(page, "Find the best plan")
    line, config = page.locator("#command").inner_text(), page.input_value("#config")
    assert line.startswith("zero-sizer choose ds.json --model llama-3-8b ")
    assert shown_by_a_terminal(page) == shell(line, {"ds.json": config}).out
    chosen = json.loads(shell(f"{line} --format json").out)
    press(page, "Use this config")
    assert answered(page) == "FITS"
    assert json.loads(page.input_value("#config")) == chosen["config"]
    how = chosen["chosen"]["checkpointing_how"]
    stated = page.get_by_label("Activation checkpointing").input_value()
    assert stated == ("" if how else "on" if chosen["chosen"]["checkpointing"] else "off")
    assert page.get_by_label("Checkpointing, how").input_value() == how


def test_a_change_that_would_make_it_fit_does(page, shell):
    press(page, "Check it")
    assert answered(page) == "DOES NOT FIT"
    page.wait_for_selector(".apply")
    line, config = page.locator("#command").inner_text(), page.input_value("#config")
    fixes = json.loads(shell(f"{line} --format json", {"ds.json": config}).out)["fixes"]
    buttons = page.locator("[data-name=fixes] .apply")
    assert buttons.count() == len(fixes) > 1
    in_config = next(i for i, f in enumerate(fixes) if f["changes"][0]["key"][:2] != "--")
    press(page, buttons.nth(in_config).get_attribute("aria-label"))
    assert answered(page) == "FITS"
    changed = json.loads(page.input_value("#config"))
    for change in fixes[in_config]["changes"]:
        found = changed
        for key in change["key"].split("."):
            found = found[key]
        assert found == change["value"]


def test_what_is_wrong_is_told_in_the_words_of_the_command_line(page, shell):
    page.get_by_label("Memory of a node's host").fill("plenty")
    press(page, "Check it")
    alert = page.get_by_role("alert").inner_text()
    line = "zero-sizer check ds.json --model llama-3-8b --host-memory plenty"
    assert f"zero-sizer: {alert}\n" == shell(line, {"ds.json": page.input_value("#config")}).err
    page.get_by_label("Nodes", exact=True).press_sequentially("-1")
    page.get_by_role("button", name="Check it").click()
    assert page.locator("#nodes:invalid").count() == 1  # the browser says so


def test_a_link_carries_the_whole_question(page):
    page.get_by_label("Micro batch of a GPU").fill("1")
    unfold(page, "More to state")
    page.get_by_label("Freeze").fill("*.embed_tokens.*")
    press(page, "Check it")
    link, line, config = (
        page.url,
        page.locator("#command").inner_text(),
        page.input_value("#config"),
    )
    page.get_by_role("button", name="Fill in an example").click()
    press(page, "Check it")
    assert page.locator("#command").inner_text() != line
    page.locator("#said").evaluate("element => element.setAttribute('aria-busy', 'true')")
    page.evaluate("link => { location.href = link; }", link)
    answered(page)
    assert page.locator("#command").inner_text() == line
    assert page.input_value("#config") == config
    assert line.endswith("--freeze '*.embed_tokens.*'")
    assert "?" not in link.partition("#")[0]  # a server never sees what stands behind the mark


def test_no_byte_leaves_the_machine_once_the_page_is_there(page, server):
    asked = len(server.paths)
    page.context.set_offline(True)
    page.get_by_label("Sequence length in tokens").fill("512")
    press(page, "Check it")
    press(page, "Find the best plan")
    page.context.set_offline(False)
    assert server.paths[asked:] == []
    elsewhere = Server(".")
    try:
        code = f"fetch('{elsewhere.url}').then(() => 'sent', (error) => error.name)"
        assert page.evaluate(code) == "TypeError"
        assert page.workers[0].evaluate(code) == "TypeError"  # where the engine runs
        assert elsewhere.paths == []
    finally:
        elsewhere.close()
        page.problems.clear()  # the browser tells of both


def test_a_keyboard_is_enough_and_everything_has_a_name(page):
    page.get_by_label("DeepSpeed config", exact=True).focus()
    page.keyboard.press("ControlOrMeta+A")
    page.keyboard.insert_text('{"bf16": {"enabled": true}, "train_micro_batch_size_per_gpu": 1}')
    seen, wanted = [], {"model": "gpt2", "gpus_per_node": "2", "seq_len": "1024"}
    while "main" not in seen and len(seen) < 40:
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.id || document.activeElement.className")
        seen.append(name)
        if name in wanted:
            page.keyboard.press("ControlOrMeta+A")
            page.keyboard.insert_text(wanted[name])
    assert set(wanted) <= set(seen)
    page.locator("#said").evaluate("element => element.setAttribute('aria-busy', 'true')")
    page.keyboard.press("Enter")
    assert answered(page) == "FITS"
    assert page.get_by_role("status").inner_text() == "Answered: FITS."
    assert "--model gpt2 " in page.locator("#command").inner_text()
    assert unnamed(page) == []
    picture = page.locator("figure[role=img]").first
    assert picture.get_attribute("aria-label").startswith("GPU: highest ")
    rows = page.get_by_role("region", name="Memory").get_by_role("row")
    assert rows.first.get_by_role("columnheader").count() >= 5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_it_without_scrolling_sideways(page, scheme):
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme=scheme)
    press(page, "Check it")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    texts = ["h1", ".verdict p", "small", "th", ".map td", "button.main", "#status", ".cards td"]
    texts += [".legend li", ".drawing .narrow text", "#config", "#command"]
    assert {k: v for k, v in contrasts(page, texts).items() if v < 4.5} == {}
    small = page.evaluate(
        "[...document.querySelectorAll('button, select, .button')].filter(e => e.offsetHeight"
        " && e.getBoundingClientRect().height < 24).length"
    )
    assert small == 0  # WCAG 2.2, 2.5.8
    page.emulate_media(color_scheme="light")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_help_is_beside_the_question_and_names_what_is_there(page, server, scheme):
    page.get_by_label("Sequence length in tokens").fill("512")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="Help").click()
    told = opened.value
    try:
        told.set_viewport_size({"width": 360, "height": 740})
        told.emulate_media(color_scheme=scheme)
        assert told.get_by_role("heading", level=1).inner_text() == "Help"
        assert told.evaluate("document.documentElement.scrollWidth") <= 360
        texts = ["p", "a", "li", "h2", "dt.fits", "dt.uncertain", "dt.does_not_fit", "code"]
        assert {k: v for k, v in contrasts(told, texts).items() if v < 4.5} == {}
        assert unnamed(told) == []
        for name in told.locator("b").all_inner_texts():
            assert name == "Apply" or page.get_by_text(name, exact=True).count() >= 1, name
        verdicts = set(told.locator("dt").all_inner_texts())
        assert verdicts == {word.upper() for word in WORDS.values()}
        told.get_by_role("link", name="Ask a question").click()
        told.get_by_role("button", name="Check it").wait_for()
    finally:
        told.close()
    assert page.get_by_label("Sequence length in tokens").input_value() == "512"


def test_a_page_that_is_opened_as_a_file_says_what_it_needs(page, server):
    opened = page.context.browser.new_page()
    opened.goto((server.folder / "index.html").as_uri())
    assert "only from a web server" in opened.get_by_role("status").inner_text()
    opened.close()


def test_a_file_goes_where_it_belongs(page, tmp_path):
    drop = """([name, text]) => {
      const data = new DataTransfer();
      data.items.add(new File([text], name));
      const dropped = new DragEvent("drop", { dataTransfer: data });
      document.querySelector("#question").dispatchEvent(dropped);
    }"""
    page.evaluate(drop, ["my zero3.json", json.dumps(CONFIG)])
    page.get_by_text("my zero3.json read.").wait_for()
    page.evaluate(drop, ["config.json", json.dumps(MODEL)])
    page.get_by_text("config.json read.", exact=True).wait_for()
    assert json.loads(page.input_value("#model_config")) == MODEL
    path = tmp_path / "job.yaml"
    path.write_text("model: gpt2\ndeepspeed: {}\ncluster: {gpus_per_node: 1, gpu: t4}\n")
    press(page, "Check it")
    line = page.locator("#command").inner_text()
    assert line.startswith("zero-sizer check 'my zero3.json' --model model/config.json")
    page.locator("#config-file").set_input_files(path)
    page.get_by_text("job.yaml read.").wait_for()
    assert page.input_value("#config") == path.read_text()
