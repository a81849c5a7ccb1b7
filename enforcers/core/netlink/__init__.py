"""Netlink messages as bytes: what the kernel is asked and told, packed and read without asking it."""
