"""Towers of a model that are fed data of their own: what is trained before them is beside them.

A vision-language model embeds its tokens, then runs its tower on pixels. Where nothing of the tower
is trained its inputs carry no gradient, and autograd keeps nothing of it, whatever the embedding
does.
"""

import re
from collections.abc import Iterable

from zero_sizer.activations.changed_blocks import Rules

_TOWER = re.compile(r"^((?:.*\.)?(?:visual|vision|audio)[a-z_]*)\.")


class Branches:
    """Which towers have met something that is trained, as the parts of a model run."""

    def __init__(self) -> None:
        self._reached: set[str] = set()

    def enter(
        self, rules: Rules, blocks: str, run: Iterable[str], *, trains: bool
    ) -> tuple[bool, bool] | None:
        """True or False of a part's input and of its output: they carry gradients; None: as usual.

        Args:
            rules: of the part.
            blocks: its list of blocks; empty outside.
            run: its modules in the order in which they run.
            trains: whether it trains anything.
        """
        found = _TOWER.match(f"{blocks}.")
        if found is not None:
            is_reached = found[1] in self._reached
            self._reached.update([found[1]] if trains else [])
            return is_reached, is_reached or trains
        trained = {name.rpartition(".")[0] for name, t in rules.rows.items() if t.trainable}
        towers = (_TOWER.match(f"{module}.") for module in run if module in trained)
        self._reached.update(tower[1] for tower in towers if tower is not None)
        return None
