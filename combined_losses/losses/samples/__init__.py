"""Sets of samples: whether two sets look as if drawn from one distribution.

No sample belongs to a certain one of the other set. `members.py` brings both sets together, of a
batch or of each of its samples; `discrepancies.py` compares them by a kernel, `sliced.py` in random
directions, `transport.py` by what it costs to move one set onto the other.
"""

from combined_losses.losses.samples.discrepancies import MMD
from combined_losses.losses.samples.sliced import SlicedWasserstein
from combined_losses.losses.samples.transport import Sinkhorn

__all__ = ["MMD", "Sinkhorn", "SlicedWasserstein"]
