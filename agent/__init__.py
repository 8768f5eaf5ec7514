"""The agent's package. Before anything else of it is imported: from where (`agent.compiled`)."""

from agent import compiled

compiled.use()
