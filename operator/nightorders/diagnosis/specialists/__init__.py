"""One view each on the same snapshot: workload, logs, changes, topology. None waits for another; one that fails leaves a gap."""
