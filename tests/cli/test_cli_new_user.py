"""What a new user stumbled over in twenty places: each is held by a test, here or elsewhere."""

import json
import re
from pathlib import Path

import pytest

from zero_sizer import cli

ROOT = Path(__file__).parents[2]
HELD = {
    "1 the search tries every knob that can make it fit": "advise/test_advise_knobs.py "
    "test_pinning_sub_groups_and_shares_make_jobs_fit advise/test_advise_fixes.py "
    "test_host_memory_is_made_to_do_before_nodes_are_asked_for",
    "2 a host that the config loads must be stated": "ledger/test_verdict.py "
    "test_a_host_that_the_config_loads_must_be_stated",
    "3 a dry run exits as the README says": "dryrun/test_simulated_room.py "
    "test_the_exit_code_is_the_verdict_s",
    "4 readable at 60, 80 and 120 columns": "report/test_widths.py "
    "test_lines_are_as_wide_as_the_terminal_or_less",
    "5 the largest micro batch is the edge of check": "advise/test_advise_largest.py "
    "test_the_largest_micro_batch_is_the_edge_of_check",
    "6 size prints what it assumes": "advise/test_advise_size.py "
    "test_the_first_lines_say_the_batch_and_what_is_assumed test_the_fewest_nodes_are_whole_nodes",
    "7 one shortfall, the reason beside the verdict": "ledger/test_verdict.py "
    "test_every_command_prints_the_same_shortfall report/test_report.py "
    "test_headroom_and_verdict_agree",
    "8 launcher lines are understood": "launchers/test_launchers.py "
    "test_a_line_says_script_and_ranks",
    "9 ids of the hub, suggestions of the same family": "models/test_models_hub.py "
    "test_ids_that_people_write_resolve test_a_suggestion_is_of_the_same_family",
    "10 an error of a script has its file and line": "dryrun/test_script_faults.py "
    "test_what_stops_a_script_is_one_line_with_its_place",
    "11 the verdict first": "dryrun/test_simulated_room.py test_the_reader_is_told_first",
    "13 many files and standard input": "questions/test_lint.py test_standard_input "
    "test_exit_codes_are_those_of_check",
    "14 emit keeps what the user wrote": "advise/test_advise_emit.py "
    "test_every_difference_is_named_and_nothing_else_is_changed "
    "test_the_config_that_was_read_is_not_overwritten_unasked "
    "test_nothing_fits_writes_nothing_and_exits_alike",
    "15 common spellings of sizes": "job/test_job_read.py "
    "test_sizes_are_read_as_free_and_shops_write_them report/test_report.py "
    "test_how_a_decimal_size_was_read_is_said test_a_length_in_thousands_is_a_power_of_two",
    "18 words of the field": "repository/test_house_words.py "
    "test_what_is_printed_has_the_words_of_the_field",
    "19 a batch hides no shortage": "advise/test_advise_size.py "
    "test_a_batch_that_cannot_be_split_hides_no_shortage",
    "20 help": "cli/test_cli_help.py test_every_command_has_examples test_the_version "
    "test_alone_it_shows_its_help_and_is_no_success test_help_of_a_command_by_its_name "
    "test_every_option_has_a_word_and_the_margin_its_default repository/test_docs_site.py "
    "test_the_page_of_the_job_yaml_has_every_key",
}
ASKED = ("--model", "llama-3.2-1b", "--gpus-per-node", "2", "--seq-len", "512")
CONFIG = {
    "bf16": {"enabled": True},
    "optimizer": {"type": "AdamW"},
    "train_micro_batch_size_per_gpu": 1,
    "zero_optimization": {"stage": 3},
}


def test_each_has_its_test():
    missing = []
    for words in HELD.values():
        text = ""
        for word in words.split():
            if word.endswith(".py"):
                text = (ROOT / "tests" / word).read_text()
            elif f"def {word}" not in text:
                missing.append(word)
    assert not missing
    assert {int(about.split()[0]) for about in HELD} | {12, 16, 17} == set(range(1, 21))


def test_what_only_deepspeeds_reader_takes_is_a_warning(tmp_path, capsys):
    """12: comments and a trailing comma pass DeepSpeed, and stop the Trainer."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG)[:-1] + ",  // mine\n}")
    cli.main(["check", str(path), *ASKED, "--gpu", "a100-40gb", "--format", "json"])
    found = {f["code"]: f for f in json.loads(capsys.readouterr().out)["findings"]}
    assert found["not-strict-json"]["severity"] == "warning"
    assert "Trainer" in found["not-strict-json"]["message"]


def test_a_short_name_of_a_gpu_says_which_one_was_taken(tmp_path, capsys):
    """16: `h100` is the SXM card of 80 GB, and the answer names it."""
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    assert cli.main(["check", str(path), *ASKED, "--gpu", "h100"]) == 0
    assert "1 x 2 h100-80gb" in capsys.readouterr().out


def test_a_cross_check_says_what_its_rows_are_before_the_errors(tmp_path, capsys):
    """17: `+664 %` against an estimate of model states reads as an alarm."""
    pytest.importorskip("deepspeed")
    path = tmp_path / "ds.json"
    path.write_text(json.dumps(CONFIG))
    words = ["crosscheck", str(path), *ASKED, "--gpu", "a100-40gb", "--with", "helpers"]
    assert cli.main(words) == 0
    head, _, table = capsys.readouterr().out.partition("witness: helpers")
    assert "DeepSpeed's helpers count model states alone: compare those" in " ".join(head.split())
    assert re.search(r"\+\d+\.\d\d%", table)
