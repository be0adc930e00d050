"""Instructions one after another: emulated on a snapshot, and on a running guest. Only here is unicorn imported."""
