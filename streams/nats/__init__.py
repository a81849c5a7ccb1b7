"""NATS: the connection, its streams read or owned, and a server of one's own."""
