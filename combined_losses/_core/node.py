"""What can be evaluated on a `Batch`: a `Leaf`, which is one loss, or a `Compound` of nodes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import Tensor

if TYPE_CHECKING:  # for the types alone: they are made of nodes
    from combined_losses._core.compound import Compound
    from combined_losses._core.leaf import Leaf

Inside = list[tuple["Node", str | None]]
"""Nodes that a node is made of, each with the prefix of the names of its parts."""


class Node:
    """The questions that a node answers; the answers here are those of a leaf.

    A leaf has no parts with names, reads the one output that it is given, and has no weights.
    """

    name: str
    opaque = False  # whether its loss is called whole, because it has a `__call__` of its own
    has_weights = False  # whether its parts have weights that can change: it is a composite
    is_made_of_losses = False  # a `Compound`; else it is a `Leaf`

    if TYPE_CHECKING:  # a subclass may answer by an attribute or by a property

        @property
        def component_names(self) -> tuple[str, ...]:
            """The names of the parts that are reported, in order."""

        @property
        def extra_keys(self) -> tuple[str, ...]:
            """The log keys of what an `Evaluation` holds beside the parts."""

        @property
        def skipped_keys(self) -> Sequence[tuple[str, ...]]:
            """For each composite inside that skips: the log keys of what it has skipped."""

        @property
        def settable_names(self) -> tuple[str, ...]:
            """The parts whose weights can be changed."""

        @property
        def chooses_outputs(self) -> bool:
            """Whether it chooses its outputs, and so sees all of them."""

        @property
        def takes_one_output(self) -> bool:
            """Whether one array may stand for the outputs that it reads."""

        @property
        def needs_target(self) -> bool:
            """Whether it has to be given `y_true`."""

        @property
        def reads_target(self) -> bool:
            """Whether it reads `y_true` where that is given."""

        @property
        def moves(self) -> bool:
            """Whether weights inside change by themselves in the steps of training."""

        @property
        def skips(self) -> bool:
            """Whether a composite inside leaves out what is not finite."""

        @property
        def variables(self) -> Sequence[Any]:
            """The state of weights inside."""

        @property
        def learned_variables(self) -> Sequence[Any]:
            """What of its variables the optimizer of the model trains."""

    else:
        component_names = extra_keys = skipped_keys = settable_names = ()
        chooses_outputs = takes_one_output = moves = skips = False
        needs_target = reads_target = True
        variables = learned_variables = ()

    @property
    def part_parents(self) -> dict[str, str | None]:
        """Which reported part each one is a part of, by name; None: of this node itself."""
        return {}

    @property
    def part_weights(self) -> dict[str, float | None]:
        """What multiplies each reported part in the value of its parent, by name; None: unknown."""
        return {}

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        """The `Evaluation` of a `Batch`; `reduction` is imposed, or `PER_COMPONENT`: its own."""
        raise NotImplementedError

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        """Values and the batch whose weights and mask are theirs; None where there are no such."""
        raise NotImplementedError

    def choose_output(self, batch: Batch, label: str) -> Batch:
        """The batch with the one output that this node reads; asked only of nodes that route."""
        raise NotImplementedError

    # Methods: Keras's saver walks over the attributes of a loss, and would not come to an end.

    def loss_itself(self) -> KerasLoss:
        """The loss of the user's that it stands for."""
        raise NotImplementedError

    def nodes_inside(self) -> Inside:
        """The nodes it is made of: pairs of a node and the prefix of the names of its parts."""
        return []

    def innermost_loss(self) -> KerasLoss:
        """The innermost loss, looking through wrappers that only change what it is given."""
        return self.loss_itself()

    def compounds(self) -> list["Compound"]:
        """The compounds in it, itself first."""
        return []

    def acts_beyond_output(self) -> bool:
        """Whether it, or a node inside, acts on the model by more than its output."""
        return any(compound.is_beyond_output for compound in self.compounds())

    def leaves(self) -> list["Leaf"]:
        """The leaves in it, in order."""
        raise NotImplementedError

    def find_readers(self) -> list[Callable[..., Any] | KerasLoss | str]:
        """The functions and losses of the user's that are called in it, each as it was given."""
        raise NotImplementedError

    def check_lambdas(self, label: str) -> None:
        """Raises where a function inside is a lambda; `label` names the component that this is."""
        raise NotImplementedError

    def current_weights(self, all_of_them: bool = False) -> dict[str, float]:
        """The weights that have been changed, which logs show, or all; those inside too."""
        return {}


class MadeOfNodes:
    """A loss that is made of losses: it is a node, or has one (abstract)."""

    def _as_node(self) -> "Compound":
        raise NotImplementedError


def node_of(loss: object) -> "Compound | None":
    """The node that a loss made of losses is, or has; None for any other loss."""
    return loss._as_node() if isinstance(loss, MadeOfNodes) else None
