"""Flower, Ray and gRPC: how the sites of an experiment are reached, here or across hospitals."""
