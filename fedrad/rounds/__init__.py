"""What every way of running shares: rounds, aggregation, evaluation, checkpoints, retries."""
