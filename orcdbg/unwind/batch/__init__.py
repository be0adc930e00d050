"""Thousands of stacks walked together."""
