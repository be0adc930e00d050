"""What decides how a mechanism patches: the choices, lists and pointers of one machine that several mechanisms ask."""
