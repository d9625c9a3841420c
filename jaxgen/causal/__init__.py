"""Networks that see only the past, and their samplers."""
