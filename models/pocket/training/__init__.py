"""How the pocket pair is made and measured. Only these scripts may use MLX and the engine from within `models`."""
