"""The exercises, one module per level, as data."""
