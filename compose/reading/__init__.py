"""The commands that read: inventory, programs, the event log, exports and replays. They change nothing."""
