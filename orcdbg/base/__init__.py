"""What every layer needs: errors, and reading bytes without trusting where they say they are."""
