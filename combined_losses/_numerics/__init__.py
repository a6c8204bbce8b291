"""Mathematics on `keras.ops`, one idea a file. Imports nothing from the rest of the package."""
