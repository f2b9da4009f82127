"""Many sites on one machine: in process, in worker processes, or on Ray."""
