"""Events of a stream for other systems: one small file for each."""
