"""What the policy fold is made of: from objects to programs and address sets, one concern per module.

selection (who is selected by what) ─▶ address sets
policies ─▶ compiling (what a kind of Pod must enforce) ─▶ directions
virtual addresses (the Services behind them, and which are open) ─▶ address sets
"""
