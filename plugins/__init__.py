"""What others load, or what loads orcdbg: the example plug-in. Imports nothing of orcdbg but `orcdbg.plugin`."""
