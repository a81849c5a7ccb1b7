"""Everything in one process: the embedded log and bus, with Kubelink, the PCE and enforcers around them."""
