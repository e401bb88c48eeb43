"""How audio enters the model: log-mel, normalisation, warm starts, pieces."""
