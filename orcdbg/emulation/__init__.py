"""Instructions one after another, emulated on a snapshot. Only here is unicorn imported."""
