"""What others changed of ours: whether to look, what differs, how often to put it back."""
