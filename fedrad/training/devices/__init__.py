"""How several sites share one device, and which way is the fastest."""
