"""Split learning: the cut, the site's half, the server's half, and what travels."""
