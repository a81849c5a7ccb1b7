"""The kernel of one node: namespaces, sockets in them, rules, sets, connections, addresses."""
