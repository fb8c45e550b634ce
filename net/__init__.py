"""The network: what nodes say to each other."""
