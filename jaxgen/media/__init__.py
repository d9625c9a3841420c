"""Arrays to pictures and sounds, and back."""
