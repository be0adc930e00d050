"""One file a mechanism: where the kernel writes over its own text, what it writes, and what decides."""
