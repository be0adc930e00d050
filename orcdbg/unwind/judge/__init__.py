"""Do the frames of a finished walk bear each other out?"""
