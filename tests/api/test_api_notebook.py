"""IPython itself: its display formatter shows results as tables, and it completes keywords."""

import pytest

pytestmark = pytest.mark.slow

ASK = """
import zero_sizer
config = {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True},
          "optimizer": {"type": "AdamW"}}
job = dict(model="llama-3.2-1b", gpu="a100-40gb", gpus_per_node=2, seq_len=1024)
"""
RESULTS = {
    "zero_sizer.check(config, **job, micro_batch=4)": (
        "FITS",
        "capacity",
        "activations_in_backward",
    ),
    "zero_sizer.check(config, **job, micro_batch=[1, 64])": ("micro_batch", "fits", "does_not_fit"),
    "zero_sizer.choose(**job)": ("ZeRO", "tokens"),
    "zero_sizer.size(model='llama-3.2-1b', gpu='a100-40gb', gpus_per_node=2, max_nodes=1)": (
        "nodes",
        "ZeRO",
    ),
    "zero_sizer.lint({'zero_optimizations': {}})": ("zero_optimization", "unknown-key"),
}


@pytest.fixture(scope="module")
def notebook():
    """A shell as a notebook's kernel has one: it takes HTML."""
    shells = pytest.importorskip("IPython.core.interactiveshell", reason="needs ipython")
    shell = shells.InteractiveShell.instance()
    shell.display_formatter.active_types = ["text/plain", "text/html"]
    shell.history_manager.enabled = False
    shell.run_cell(ASK).raise_error()
    yield shell
    shells.InteractiveShell.clear_instance()


@pytest.mark.parametrize("question", RESULTS)
def test_a_result_is_shown_as_a_table_and_as_text(notebook, question):
    done = notebook.run_cell(question, store_history=False)
    done.raise_error()
    shown, _ = notebook.display_formatter.format(done.result)
    assert set(shown) == {"text/plain", "text/html"}
    assert "<table>" in shown["text/html"]
    for word in RESULTS[question]:
        assert word in shown["text/html"], word
    assert "object at 0x" not in shown["text/plain"]
    assert len(shown["text/plain"].splitlines()) >= 1


def test_a_sweep_becomes_a_frame_of_pandas(notebook):
    pytest.importorskip("pandas")
    code = "import pandas; pandas.DataFrame(zero_sizer.check(config, **job, micro_batch=[1, 2, 4]))"
    done = notebook.run_cell(code, store_history=False)
    done.raise_error()
    assert list(done.result["micro_batch"]) == [1, 2, 4]
    shown, _ = notebook.display_formatter.format(done.result)
    assert "gpu_peak_bytes" in shown["text/html"]


def test_keywords_are_completed_and_explained(notebook):
    completer = pytest.importorskip("IPython.core.completer")
    with_jedi = notebook.Completer.use_jedi
    notebook.Completer.use_jedi = False  # the shell's own: it asks the function for its signature
    line = "zero_sizer.check(config, seq_"
    try:
        with completer.provisionalcompleter():
            found = {one.text for one in notebook.Completer.completions(line, len(line))}
    finally:
        notebook.Completer.use_jedi = with_jedi
    assert "seq_len=" in found
    told = notebook.object_inspect_text("zero_sizer.check")
    assert "seq_len" in told


def test_an_error_names_what_was_meant(notebook, capsys):
    done = notebook.run_cell("zero_sizer.check(config, sequence=5)", store_history=False)
    assert "did you mean sequences?" in str(done.error_in_exec)
    assert "did you mean sequences?" in capsys.readouterr().out
