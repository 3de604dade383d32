"""A model whose blocks go through ``deepspeed.checkpointing.checkpoint``, as Megatron's do."""

import deepspeed
import torch
from torch import nn

WIDTH, BLOCKS, VOCAB = 256, 5, 512


class Block(nn.Module):
    """A gated block, so that there is something to recompute."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.up, self.gate = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, hidden):
        normed = self.norm(hidden)
        return hidden + self.down(torch.sigmoid(self.gate(normed)) * self.up(normed))


class Model(nn.Module):
    """Embedding, blocks, head, loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.head = nn.Linear(WIDTH, VOCAB)

    def forward(self, input_ids, labels):
        hidden = self.embed(input_ids)
        for block in self.blocks:
            hidden = deepspeed.checkpointing.checkpoint(block, hidden)
        logits = self.head(hidden).float()
        return nn.functional.cross_entropy(logits.view(-1, VOCAB), labels.view(-1))


def build():
    """The factory."""
    return Model()
