"""The guard's end of the egress process: its channel, its successors, and whose a connection is."""
