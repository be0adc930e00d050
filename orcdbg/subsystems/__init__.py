"""What do the parts of a kernel hold: files, mounts, timers, run queues, devices? One file a part, over typed objects."""
