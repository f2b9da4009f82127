"""Values without which nothing else speaks: states, seeds, and their safe keeping."""
