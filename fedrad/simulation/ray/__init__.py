"""Sites played by Ray's actors, on this machine or on a cluster."""
