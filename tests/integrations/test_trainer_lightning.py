"""Lightning's Trainer runs with the callback; skipped where Lightning is not installed."""

import pytest
import torch

from zero_sizer.dryrun import recording

pytest.importorskip("lightning")
pytestmark = pytest.mark.slow

WIDTH, ROWS, TOKENS, STEPS, ACCUMULATION = 16, 2, 8, 3, 2


@pytest.fixture(scope="module")
def lightning():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import lightning.pytorch

        return lightning.pytorch


def _run(lightning, folder, *, fails_at=None, logger=False):
    from zero_sizer.integrations.lightning import MemoryCallback

    class Net(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(64, WIDTH)
            self.head = torch.nn.Linear(WIDTH, 1)

        def training_step(self, batch, index):
            if index == fails_at:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return self.head(self.embedding(batch["input_ids"])).mean()

        def validation_step(self, batch, index):
            self.head(self.embedding(batch["input_ids"]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1)

    rows = [{"input_ids": torch.arange(TOKENS)} for _ in range(64)]
    loader = torch.utils.data.DataLoader(rows, batch_size=ROWS)
    trainer = lightning.Trainer(
        accelerator="cpu",
        devices=1,
        max_steps=STEPS,
        accumulate_grad_batches=ACCUMULATION,
        val_check_interval=2 * ACCUMULATION,
        limit_val_batches=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=[MemoryCallback()],
    )
    trainer.fit(Net(), loader, loader)
    return recording.read(folder / "memory.json")


@pytest.mark.filterwarnings("ignore")
def test_its_phases_are_recorded_and_its_loggers_told(lightning, tmp_path, capsys):
    logger = lightning.loggers.CSVLogger(tmp_path, name="", version="logs")
    found = _run(lightning, tmp_path, logger=logger)
    one = [("forward", 0), ("backward", 0), ("forward", 1), ("backward", 1), ("step", 1)]
    for step in range(STEPS):
        seen = [(p.name, p.micro_step) for p in found.first.phases if p.step == step]
        assert [phase for phase in seen if phase[0] not in ("init", "evaluation")] == one
    assert "evaluation" in {phase.name for phase in found.first.phases}
    assert {s.tokens for s in found.first.steps} == {ROWS * TOKENS * ACCUMULATION}
    heads, *rows = (tmp_path / "logs" / "metrics.csv").read_text().splitlines()
    assert "memory/host_resident_backward_gib" in heads
    assert len(rows) >= STEPS
    assert "no DeepSpeed config" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore")
def test_a_run_that_fails_leaves_its_recording(lightning, tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        _run(lightning, tmp_path, fails_at=3)
    (note,) = recording.read(tmp_path / "memory.json").notes
    assert note.startswith("ended by OutOfMemoryError in forward of step 1, micro step 1")
