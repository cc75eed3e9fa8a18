"""A kernel beside the golden numbers of one of our pairs."""
