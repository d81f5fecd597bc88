"""How a study runs: cells, the scheduler, executors on this machine and on Ray, and the store of results."""
