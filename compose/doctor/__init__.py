"""Whether this machine can enforce, shown by trying."""
