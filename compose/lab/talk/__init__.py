"""How the lab speaks: its sockets, SCTP by hand, and connections that last."""
