"""Pure decisions of Kubelink: raw objects to projections, lists and watches to changes and derived deletions."""
