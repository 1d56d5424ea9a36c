"""`slipstream bench`: how much faster drafting is on this machine, and which setting is best.

    prompts -> plan -> runner -> results -> rows -> table, exports, picture, advice, comparison

The runner alone talks to an engine; everything behind `results` is arithmetic on what was kept.
"""
