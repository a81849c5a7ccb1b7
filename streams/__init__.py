"""Transport: how things travel. The log (Kafka or one SQLite file), the bus (NATS), and what every service shares."""
