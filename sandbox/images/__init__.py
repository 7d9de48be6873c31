"""Content store, unpacking, image configuration."""
