"""The lab: a cluster's network on one Linux machine. Pods are network namespaces, nodes are routers, packets real."""
