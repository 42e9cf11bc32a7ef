"""Training: methods, the memory bank and its groups, and the loop that records a run."""
