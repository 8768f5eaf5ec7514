"""What runs beside a session: it sees and tells, and holds nobody up."""
