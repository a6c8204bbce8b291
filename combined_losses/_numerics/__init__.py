"""Mathematics on `keras.ops`: one idea a file. Imports nothing of ours."""
