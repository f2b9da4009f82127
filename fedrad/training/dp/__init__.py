"""Differentially private training: clipped gradients of each patient, and noise."""
