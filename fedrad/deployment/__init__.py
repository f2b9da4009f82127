"""Sites and coordinator as processes of their own, with Flower's messages over gRPC."""
