"""What kind of fault a wrong gradient has."""
