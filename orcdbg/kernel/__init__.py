"""Linux as a data structure: tasks, CPUs, stacks, modules, names, features."""
