"""From targets and predictions to a number: one idea a file."""
