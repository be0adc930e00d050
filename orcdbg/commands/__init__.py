"""The user's words: each command asks the model and returns a result object; none prints."""
