"""The interactive shell: keys, prompt, completion, history and pager over the commands. Only here is cmd2 imported."""
