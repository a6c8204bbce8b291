"""What needs the model: the mixin, the model classes, the tracker; one file for each framework."""
