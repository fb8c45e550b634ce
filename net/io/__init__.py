"""The wire protocol performed: sockets, clocks and a log around the pure machine."""
