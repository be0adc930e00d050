"""What assistants ask over the Model Context Protocol: snapshots, commands, pages of answers."""
