"""What did ftrace record before the machine stopped?"""
