"""What the lab is made of inside: lines for the kernel, rules for the nodes, and the proof that nothing leads out."""
