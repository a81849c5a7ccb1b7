"""Connections of one namespace: the table, the sockets, and what policy makes of them."""
