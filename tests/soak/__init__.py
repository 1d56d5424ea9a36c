"""Many turns on the pocket pair, outside the test run: does it stay healthy? See `python -m tests.soak --help`."""
