"""How real kernels get into the tests: fetching Debian's, booting them under QEMU, stopping and dumping them."""
