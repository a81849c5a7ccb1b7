"""The lab and Kubernetes objects: reading them, and filling in what a control plane would."""
