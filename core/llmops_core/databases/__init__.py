"""What the storages in databases share: URLs, TLS, names. Knows no driver."""
