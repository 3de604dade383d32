"""Trainers whose loss is their own: what is said of them, and what is predicted all the same."""

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def said():
    """(Severity, message) of what is said of a trainer of a class, with attributes."""
    pytest.importorskip("trl")
    from zero_sizer.integrations.left_out import left_out

    def of(kind, **attributes):
        trainer = object.__new__(kind)
        vars(trainer).update(attributes)
        return [(found.severity.value, found.message) for found in left_out(trainer)]

    return of


def test_transformers_own_trainers_are_predicted_whole(said):
    import transformers

    assert said(transformers.Trainer) == said(transformers.Seq2SeqTrainer) == []


def test_a_loss_of_a_persons_own_is_said(said):
    import transformers

    class Mine(transformers.Trainer):
        def compute_loss(self, *args, **kwargs):
            return super().compute_loss(*args, **kwargs)

    (found,) = said(Mine)
    assert found == ("note", "Mine computes a loss of its own: the model's is predicted")


def test_sft_differs_by_its_chunks_alone(said):
    import trl

    class Mine(trl.SFTTrainer):
        pass

    for kind in (trl.SFTTrainer, Mine):
        ((severity, message),) = said(kind)
        assert severity == "note"
        assert "computes its loss in chunks" in message


@pytest.mark.parametrize(
    "name",
    ["DPOTrainer", "KTOTrainer", "RewardTrainer", "GRPOTrainer", "RLOOTrainer", "orpo.ORPOTrainer"],
)
def test_other_losses_are_said_not_to_be_predicted(said, name):
    import importlib

    module, _, kind = f"experimental.{name}".rpartition(".") if "." in name else ("", "", name)
    found = importlib.import_module(f"trl.{module}".rstrip("."))
    ((severity, message),) = said(getattr(found, kind))
    assert severity == "warning"
    assert message == f"{kind} computes a loss of its own: none of it is in the prediction"


def test_what_is_kept_beside_is_said_with_its_size(said):
    import torch
    import trl

    reference = torch.nn.Linear(1024, 1024, bias=False)
    ((_, message),) = said(trl.DPOTrainer, ref_model=reference)
    assert "beside a reference model of 4.00 MiB on this rank" in message
    weight = torch.nn.Parameter(torch.empty(0))
    weight.ds_tensor = torch.empty(512, dtype=torch.bfloat16)  # ZeRO-3's part of it
    reference.weight = weight
    ((_, message),) = said(trl.GRPOTrainer, ref_model=reference, generation_config=None)
    assert "a reference model of 1.00 KiB on this rank and answers that it generates" in message
