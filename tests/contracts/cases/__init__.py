"""The cases of the registry, one file a family."""
