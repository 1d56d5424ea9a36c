"""`slipstream serve`: the engine as an endpoint for editors and agents, over the APIs that they speak."""
