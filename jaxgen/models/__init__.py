"""One file a family: networks, losses, state, model."""
