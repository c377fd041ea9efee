"""THE NODE PROCESS: owns the sockets, the store and every decision; runs no user code."""
