"""Which registers are known in each frame, and where was each saved?"""
