"""Startup kits: keys, certificates and papers for each site."""
