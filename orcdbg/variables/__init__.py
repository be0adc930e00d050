"""Local variables and arguments of frames: where the build says they are, by the registers that the walk proved."""
