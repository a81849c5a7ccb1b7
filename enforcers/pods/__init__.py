"""One Pod: its rules, its sets, its connections, and what is known of them for certain."""
