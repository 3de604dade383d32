"""Activation profiles: what a model's forward and backward hold, for any batch and sequence.

A profile is traced once (``zero_sizer.tracing``, needs torch) and evaluated here without
torch. It speaks of one micro step of one rank: forward, loss, backward. Weights, finished parameter
gradients, optimizer states and the batch itself are not in it.

``load(spec)`` finds the profile, ``Profile.evaluate(...)`` gives ``StepActivations``:

* ``parts``: what runs, in forward order. A part is a run of equal blocks (``count`` of them) or
  what lies outside of blocks: before the first block (embedding, rotary tables, masks), between the
  stacks of an encoder-decoder, and after the last block (final norm, head, loss). The backward
  runs the parts, and the blocks of a run, in reverse.
* Every part has a ``forward`` and a ``backward`` section. Of a section, counted from the level at
  which it begins: ``peak`` is the highest level within, ``end`` the level when it is over. So the
  level at any place is the sum of the ``end`` of all sections before it, and ``end`` of a block's
  forward is what it saves for backward plus its output minus the input that it lets go.
* A block's forward begins when the block is called and ends when the next block (or whatever
  follows) is called. The last part's forward ends when the loss alone is held: logits are let go.
* A block's backward begins when the gradient of its output is complete (``gradient`` bytes, part of
  the level already), and ends when that of its input is. With checkpointing it holds the
  recomputation too. What comes before in the last part's backward is loss and head.
* ``steps`` cut a section where parameters matter: a step begins where modules begin to run or have
  run, or where the gradient is made that it ends with, that of parameter ``completes``. ``runs``
  names those modules in order, relative to the block (``.``: itself): ``name`` owns parameters and
  begins (ZeRO-3 gathers them), ``/name`` has run (ZeRO-3 releases them), ``~name`` begins and owns
  none (ZeRO-3 prefetches there too), ``^name`` and ``^~name`` begin their backward.
  ``peak`` and ``end`` as above, from where the section begins.

What counts: storages of tensors on the GPU, those of constant size rounded up to 512 bytes, others
as they are. The gradient of a parameter does not count from the step on in which it is both made
and complete; one that waits for a second contribution (tied weights) counts until then. Gradients
of one module that are complete in steps right after one another are made in the first. Under
autocast the 16-bit copies of weights count: they are the constant terms. Peaks are exact on a grid
of batches and sequences from 64 on, and never above the truth.
"""

from zero_sizer.activations.profile import (
    Profile,
    ProfilePart,
    ProfileSection,
    StepActivations,
    StepLevel,
)
from zero_sizer.activations.store import cache_file, load

__all__ = [
    "Profile",
    "ProfilePart",
    "ProfileSection",
    "StepActivations",
    "StepLevel",
    "cache_file",
    "load",
]
