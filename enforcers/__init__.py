"""The C-VEN: makes the kernel of one node agree with the programs of its Pods, and says what it did."""
