"""The commands that read the event log: listing, exporting and replaying it."""
