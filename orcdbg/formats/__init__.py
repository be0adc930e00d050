"""Bytes of one file format each, and telling the formats apart."""
