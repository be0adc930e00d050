"""The GDB remote protocol, as a client of a running guest and as a server of a snapshot."""
