"""What is in the files that a user has, what is missing, and how it is got."""
