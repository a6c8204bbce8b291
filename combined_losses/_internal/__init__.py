"""What two families share: one idea a file. Nothing here is public."""
