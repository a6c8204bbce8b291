"""What can be evaluated on a `Batch`: a `Leaf`, which is one loss, or a `Compound` of nodes."""

from typing import Any

from combined_losses._core.reduction import PER_COMPONENT


class Node:
    """The questions that a node answers; the answers here are those of a leaf.

    A leaf has no parts with names, reads the one output that it is given, and has no weights.
    """

    name: str
    opaque = False  # whether its loss is called whole, because it has a `__call__` of its own
    has_weights = False  # whether its parts have weights that can change: it is a composite
    is_made_of_losses = False  # a `Compound`; else it is a `Leaf`
    component_names: Any = ()  # the names of the parts that are reported, in order
    extra_keys: Any = ()  # the log keys of what an `Evaluation` holds beside the parts
    skipped_keys: Any = ()  # tuples of the log keys of what each composite inside has skipped
    settable_names: Any = ()  # the parts whose weights can be changed
    routes: Any = False  # whether it chooses its outputs, and so sees all of them
    takes_one_output: Any = False  # whether one array may stand for the outputs that it reads
    needs_target: Any = True  # whether it has to be given `y_true`
    reads_target: Any = True  # whether it reads `y_true` where that is given
    moves: Any = False  # whether weights inside change by themselves in the steps of training
    skips: Any = False  # whether a composite inside leaves out what is not finite
    variables: Any = ()  # the state of weights inside
    learned_variables: Any = ()  # what of it the optimizer of the model trains

    @property
    def part_parents(self):
        """Which reported part each one is a part of, by name; None: of this node itself."""
        return {}

    @property
    def part_weights(self):
        """What multiplies each reported part in the value of its parent, by name; None: unknown."""
        return {}

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        """The `Evaluation` of a `Batch`; `reduction` is imposed, or `PER_COMPONENT`: its own."""
        raise NotImplementedError

    def unreduced(self, batch, imposed, label):
        """Values and the batch whose weights and mask are theirs; None where there are no such."""
        raise NotImplementedError

    # Methods: Keras's saver walks over the attributes of a loss, and would not come to an end.

    def loss_itself(self):
        """The loss of the user's that it stands for."""
        raise NotImplementedError

    def nodes_inside(self):
        """The nodes it is made of: pairs of a node and the prefix of the names of its parts."""
        return []

    def judge(self):
        """The loss that compares in the end: that inside a wrapper which only changes the view."""
        return self.loss_itself()

    def compounds(self):
        """The compounds in it, itself first."""
        return []

    def acts_beyond_output(self):
        """Whether it, or a node inside, acts on the model by more than its output."""
        return any(compound.is_beyond_output for compound in self.compounds())

    def leaves(self):
        """The leaves in it, in order."""
        raise NotImplementedError

    def find_readers(self):
        """The functions and losses of the user's that are called in it, each as it was given."""
        raise NotImplementedError

    def check_lambdas(self, label):
        """Raises where a function inside is a lambda; `label` names the component that this is."""
        raise NotImplementedError

    def current_weights(self, all_of_them=False):
        """The weights that have been changed, which logs show, or all; those inside too."""
        return {}
