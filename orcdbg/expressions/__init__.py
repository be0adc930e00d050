"""What does a C expression mean of a stopped kernel, as people write it in gdb and crash?"""
