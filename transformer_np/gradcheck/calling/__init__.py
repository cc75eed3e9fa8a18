"""A pair as the checker calls it: what goes in, what comes out, in which precision and memory layout."""
