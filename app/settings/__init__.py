"""The settings: what there is to set, what a person has set, and where. No screen, no engine."""
