"""MESSAGES: everything that crosses a process boundary, as versioned types and as bytes. No sockets of its own."""
