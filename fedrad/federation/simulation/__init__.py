"""Sites played on this machine: in process, by forked workers, several at once on a device."""
