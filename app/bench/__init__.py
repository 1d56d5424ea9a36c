"""`slipstream bench`: measures how much faster drafting is on this machine, and which setting is fastest.

    prompts -> plan -> runner -> results -> rows -> table, exports, picture, advice, comparison

Only the runner talks to an engine; everything after `results` calculates from the stored measurements.
"""
