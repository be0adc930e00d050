"""A stopped kernel ready to be asked, the handle that everybody is given; and a vmlinux alone."""
