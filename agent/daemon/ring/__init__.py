"""The guard's part in a session's execs and sockets."""
