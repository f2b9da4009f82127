"""Training and evaluating one model on one site's images; knows nothing of federations."""
