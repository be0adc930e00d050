"""Names and types: symbol tables and BTF."""
