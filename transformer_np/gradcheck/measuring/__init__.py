"""A gradient measured from forward alone, and how exactly that can be known."""
