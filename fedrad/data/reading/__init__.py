"""What adapters read files with: CSV tables, labels, images."""
