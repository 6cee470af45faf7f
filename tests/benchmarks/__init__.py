"""`make bench`: what the operator costs, against the floor of the same cluster in the same run."""
