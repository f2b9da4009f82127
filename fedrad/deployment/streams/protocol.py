"""What both ends of a stream's call agree on: its name, its metadata, its pings."""

__all__ = ["HELLO", "METHOD", "PING", "WELCOME"]

METHOD = "/fedrad.Split/Play"
HELLO = "fedrad-hello-bin"
WELCOME = "fedrad-welcome-bin"
PING = (
    # HTTP/2 pings from gRPC's own threads: they go on while Python computes, keep a firewall's
    # state alive, and tell a dead or stopped process from one that is only slow.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)
