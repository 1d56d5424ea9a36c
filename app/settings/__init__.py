"""The settings: what can be set, what a person has set, and where. Imports no screen and no engine process."""
