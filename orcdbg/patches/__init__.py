"""Why text differs from the image: one file a mechanism, the order of passes, the ledger, the audit."""
