"""What transport decides: pure. What to publish for a change, what a read says, what a message lacks."""
