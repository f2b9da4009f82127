"""The site's own process: its worker, its guard and policy, and its record of what left."""
