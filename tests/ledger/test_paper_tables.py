"""Numbers printed in papers, from the ledger's own entries."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from support.plans import equal_tensors, make_plan

from zero_sizer.ledger import entries as features
from zero_sizer.ledger.entry import evaluate

TABLE = json.loads((Path(__file__).parents[1] / "data" / "zero_paper_table1.json").read_text())

# The paper counts one copy of the gradients: the whole of it at stage 1 (what is held between two
# micro steps), this rank's part above.
PAPER_TERMS = {
    1: ("bit16_groups_flat", "gradients_in_forward"),
    2: ("bit16_groups_flat", "grads_in_partition"),
    3: ("lp_param_buffer", "grad_partitions_flat_buffer"),
}


def _model_states_gb(stage: int, params: int, ranks: int) -> float:
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "fp16": {"enabled": True},
        "optimizer": {"type": "Adam", "params": {}},
        "zero_optimization": {"stage": stage},
    }
    # stage 2 keeps whole tensors: small ones, so that those at the edges stay below a digit
    plan = make_plan(config, equal_tensors(params, 20_000 if stage == 2 else 500), ranks)
    terms = {*PAPER_TERMS[stage], "master_weights", "exp_avg", "exp_avg_sq"}
    entries = [entry for entry in features.ENTRIES if entry.name in terms]
    found = {a.name: a.num_bytes for a in evaluate(entries, plan, explain=False)}
    assert found.keys() == terms
    return sum(found.values()) / 10**9


@pytest.mark.slow
@pytest.mark.parametrize(
    "row", TABLE["rows"], ids=lambda r: f"{r['params']:.3g}-{r['ranks']}-{r['stage']}"
)
def test_zero_table_1_to_the_printed_digit(row):
    """arXiv:1910.02054 Table 1; some cells are rounded, some cut off: one unit of a last digit."""
    unit = 10.0 ** Decimal(str(row["gb"])).as_tuple().exponent
    computed = _model_states_gb(row["stage"], row["params"], row["ranks"])
    assert abs(computed - row["gb"]) < unit


def test_zero_figure_1_for_7_5_billion_parameters_on_64_gpus():
    """arXiv:1910.02054 Figure 1: 31.4, 16.6 and 1.9 GB."""
    computed = [_model_states_gb(stage, 7_500_000_000, 64) for stage in (1, 2, 3)]
    assert [round(gb, 1) for gb in computed] == [31.4, 16.6, 1.9]
