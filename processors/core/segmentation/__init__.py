"""What the policy fold is made of: from objects to programs and address sets, one concern per module.

selectors ─▶ population (who is selected by what) ─▶ address sets
policies  ─▶ compiling (what a kind of Pod must enforce) ─▶ directions
services  ─▶ virtual (which virtual addresses are open) ─▶ address sets
"""
