"""Sites run by Ray's actors, on this machine or on a cluster."""
