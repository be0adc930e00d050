"""Which tasks wait, for what, and who has it?"""
