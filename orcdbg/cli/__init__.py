"""The command line: options, batch mode, and exit statuses."""
