"""What can be evaluated on a `Batch`: a `Leaf`, which is one loss, or a `Compound` of nodes."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from combined_losses._core.batch import Batch
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses._numerics.arrays import Tensor

if TYPE_CHECKING:  # only for types: these modules import this one
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
    has_weights = False  # whether its parts have weights that can change, as a composite's have
    is_made_of_losses = False  # True for a `Compound`, False for a `Leaf`

    if TYPE_CHECKING:  # so that a subclass may answer by an attribute or by a property

        @property
        def component_names(self) -> tuple[str, ...]:
            """The names of the parts that are reported, in order."""

        @property
        def extra_keys(self) -> tuple[str, ...]:
            """The log keys of the `extras` of an `Evaluation`."""

        @property
        def skipped_keys(self) -> Sequence[tuple[str, ...]]:
            """For each composite inside that skips components: their log keys."""

        @property
        def settable_names(self) -> tuple[str, ...]:
            """The parts whose weights can be changed."""

        @property
        def chooses_outputs(self) -> bool:
            """Whether it chooses among the outputs of the model, and so is given all of them."""

        @property
        def takes_one_output(self) -> bool:
            """Whether one array may stand for the outputs that it reads."""

        @property
        def needs_target(self) -> bool:
            """Whether it has to be given `y_true`."""

        @property
        def reads_target(self) -> bool:
            """Whether it reads `y_true` if that is given."""

        @property
        def moves(self) -> bool:
            """Whether weights inside change by themselves in the steps of training."""

        @property
        def skips(self) -> bool:
            """Whether a composite inside leaves out components that are not finite."""

        @property
        def variables(self) -> Sequence[Any]:
            """The state of weights inside."""

        @property
        def learned_variables(self) -> Sequence[Any]:
            """Those of its variables that the optimizer of the model trains."""

    else:
        component_names = extra_keys = skipped_keys = settable_names = ()
        chooses_outputs = takes_one_output = moves = skips = False
        needs_target = reads_target = True
        variables = learned_variables = ()

    @property
    def part_parents(self) -> dict[str, str | None]:
        """By the name of each reported part its parent; None for a part of this node itself."""
        return {}

    @property
    def part_weights(self) -> dict[str, float | None]:
        """By the name of each reported part its factor in its parent's value; None if unknown."""
        return {}

    def evaluate(
        self, batch: Batch, reduction: str | None = PER_COMPONENT, label: str | None = None
    ) -> Evaluation:
        """The `Evaluation` of a `Batch`. `reduction` is imposed; `PER_COMPONENT`: its own."""
        raise NotImplementedError

    def unreduced(self, batch: Batch, imposed: bool, label: str) -> tuple[Tensor, Batch] | None:
        """The unreduced values, and the batch whose weights and mask still have to be applied.

        None for a node that has only reduced values.
        """
        raise NotImplementedError

    def choose_output(self, batch: Batch, label: str) -> Batch:
        """The batch of the one output that this node reads; asked only if it `chooses_outputs`."""
        raise NotImplementedError

    # The rest are methods, not properties: Keras's saver reads every attribute of a loss, and would
    # follow properties that return losses without end.

    def loss_itself(self) -> KerasLoss:
        """The user's loss that this node stands for."""
        raise NotImplementedError

    def nodes_inside(self) -> Inside:
        """The nodes it is made of: pairs of a node and the prefix of the names of its parts."""
        return []

    def innermost_loss(self) -> KerasLoss:
        """The innermost loss, looking through wrappers that only transform their inputs."""
        return self.loss_itself()

    def compounds(self) -> list["Compound"]:
        """The compounds in it, itself first."""
        return []

    def acts_beyond_output(self) -> bool:
        """Whether it, or a node inside, reaches the model by more than its output."""
        return any(compound.is_beyond_output for compound in self.compounds())

    def leaves(self) -> list["Leaf"]:
        """The leaves in it, in order."""
        raise NotImplementedError

    def find_readers(self) -> list[Callable[..., Any] | KerasLoss | str]:
        """The user's functions and losses that are called in it, each as the user gave it."""
        raise NotImplementedError

    def check_lambdas(self, label: str) -> None:
        """Raises if a function inside is a lambda; `label` names this component in the error."""
        raise NotImplementedError

    def current_weights(self, all_of_them: bool = False) -> dict[str, float]:
        """The current weights of its parts and of theirs: by default those that logs show.

        Logs show the weights that have ever changed; `all_of_them` asks for the rest too.
        """
        return {}


class MadeOfNodes:
    """A loss that is made of losses, and is a node itself or holds one (abstract)."""

    def _as_node(self) -> "Compound":
        raise NotImplementedError


def node_of(loss: object) -> "Compound | None":
    """The node of a loss that is made of losses; None for any other loss."""
    return loss._as_node() if isinstance(loss, MadeOfNodes) else None
