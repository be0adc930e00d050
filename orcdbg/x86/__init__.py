"""x86-64 instructions: how they are decoded, where they branch, and what they do to the stack and to registers."""
