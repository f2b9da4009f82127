"""Split learning across hospitals: streams of frames over gRPC, which the sites open."""
