"""Who runs beside a session: the companions (`agent.daemon.beside.companions`), and in which order they start."""

from __future__ import annotations

from agent.daemon.beside.companions import Companion, Company
from agent.daemon.beside.detecting import Detecting
from agent.daemon.beside.strays import Strays
from agent.daemon.beside.watching import IntegrityWatch
from agent.daemon.control.callers import Callers
from agent.daemon.control.events import ControlEvents
from agent.daemon.control.execs import Execs
from agent.daemon.control.lockdown import Lockdown, freezer_of
from agent.daemon.control.server import ControlServer
from agent.daemon.control.verbs import ControlVerbs
from agent.daemon.survival.restoring import Restoring


def companions(company: Company) -> list[Companion]:
    """All of them, in the order in which they start."""
    lockdown, restoring = Lockdown(company, freezer_of(company)), Restoring(company)
    callers = Callers(company.spec, company.policy)
    events = ControlEvents(company.ledger, company.spec.session_id)
    verbs = ControlVerbs(company, lockdown, Execs(company, events), restoring)
    return [
        Detecting(company, lockdown),  # first: it sees the events of all others
        restoring,
        IntegrityWatch(company),
        Strays(company),
        lockdown,
        ControlServer(company.spec, callers, events, verbs.table()),
    ]
