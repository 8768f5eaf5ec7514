"""Attacks on the way out and the way in: every kind of socket, and what other processes and namespaces offer."""

from __future__ import annotations

from tests.escape.attacks.declared import Attack, Control, Group, Record, Shown, Verdict, everywhere

REFUSED, CONTAINED, OPEN, UNTESTED = Verdict.REFUSED, Verdict.CONTAINED, Verdict.OPEN, Verdict.UNTESTED
INSIDE, UNCONFINED = Control.INSIDE, Control.UNCONFINED
BLOCKED = ("network.egress_blocked", "egress-default")
NO_RIGHTS = "the account has not the right for it anywhere: the attack is on the filter before that"
NOBODY = "nobody is there: what is shown is that the attempt is decided, or reaches nothing"
UNIX = Record("network.egress_blocked", "unix-socket", "doors/unix.sock")
GVISOR_SOCKETS = (
    "gVisor of 2022 has no mount namespaces: a Unix socket by path that its permissions open to everybody can be"
    " connected to, and hands out descriptors"
)
LATE_SOCKETS = (
    "with a network namespace nobody looks at connections to Unix sockets by path: where no mount namespace keeps"
    " ungranted places out of sight, one that is made later can be connected to"
)
SHARED_LOOPBACK = (
    "without a network namespace the session listens on the container's loopback, where processes of the same container"
    " reach it; nobody outside of the container does"
)


def contained(act: str, name: str, *rows: int, control: Control | str = UNCONFINED) -> Attack:
    return Attack(act, name, everywhere(CONTAINED), control, rows)


def without(act: str, name: str, *rows: int, lacking: str) -> Attack:
    """What gVisor has not."""
    return Attack(act, name, everywhere(CONTAINED, gvisor=UNTESTED), UNCONFINED, rows, untested=lacking)


def untested(act: str, name: str, *rows: int, lacking: str) -> Attack:
    return Attack(act, name, everywhere(UNTESTED), UNCONFINED, rows, untested=lacking)


def beside(act: str, name: str, words: str, *rows: int) -> Attack:
    """A service beside the session: not in its own network namespace, and refused by the guard where it has none."""
    verdicts = everywhere(CONTAINED, docker=REFUSED, restricted=REFUSED)
    return Attack(act, name, verdicts, UNCONFINED, rows, Record(*BLOCKED, words))


def elsewhere(act: str, name: str, words: str, **but: Verdict) -> Attack:
    return Attack(act, name, everywhere(REFUSED, **but), NOBODY, (), Record(*BLOCKED, words))


def by_path(act: str, name: str, *rows: int) -> Attack:
    """A Unix socket: refused by the guard where it connects for the session, else covered."""
    verdicts = everywhere(REFUSED, host=CONTAINED, gvisor_2022=OPEN, gvisor_2024=CONTAINED)
    return Attack(act, name, verdicts, UNCONFINED, rows, UNIX, hole=GVISOR_SOCKETS)


ON_ADDRESSES = (
    beside("sidecar", "A service on the machine's loopback is connected to past the proxy", "127.0.0.1:{port}"),
    beside("sidecar_by_ipv6", "A service on the machine's loopback is connected to by IPv6", "[::1]:{port}"),
    beside("sidecar_by_any_address", "A service on the machine's loopback is connected to as 0.0.0.0",
           "127.0.0.1:{port}"),
    beside("shell_redirection", "A shell connects by /dev/tcp", "127.0.0.1:{port}", 27),
    Attack("sidecar_by_proxy", "The proxy is asked for a service on the machine's loopback", everywhere(REFUSED),
           INSIDE, (), Record(*BLOCKED, "127.0.0.1:{port}")),
    elsewhere("elsewhere", "An address elsewhere is connected to past the proxy", "192.0.2.1:4444", gvisor=CONTAINED),
    elsewhere("elsewhere_on_a_web_port", "A web port elsewhere gets bytes that are no TLS", "192.0.2.2:443",
              gvisor_2022=CONTAINED),
    elsewhere("elsewhere_by_ipv6", "An address elsewhere is connected to by IPv6", "[2001:db8::1]:4445",
              gvisor=CONTAINED),
    Attack("forbidden_name", "A question to a name server carries bytes out", everywhere(REFUSED), INSIDE, (),
           Record(*BLOCKED, "secret-in-a-name.forbidden.test:53")),
    contained("udp", "A datagram is sent past the proxy"),
    contained("udp_by_ipv6", "A datagram is sent by IPv6"),
    contained("inbound", "A process outside connects to what the session listens on at all addresses"),
    Attack("inbound_on_loopback", "A process beside the agent connects to what the session listens on at loopback",
           everywhere(CONTAINED, docker=OPEN, restricted=OPEN), UNCONFINED, hole=SHARED_LOOPBACK),
    contained("proxys_port", "The session takes the proxy's port", control=INSIDE),
)  # fmt: skip

ON_FAMILIES = (
    without("multipath", "Multipath TCP connects past the rule for TCP", lacking="gVisor has no multipath TCP"),
    without("fast_open", "TCP Fast Open connects with sendto", lacking="gVisor has no TCP Fast Open for clients"),
    without("fast_open_by_message", "TCP Fast Open connects with sendmsg",
            lacking="gVisor has no TCP Fast Open for clients"),
    without("fast_open_at_connect", "TCP_FASTOPEN_CONNECT connects with the first write",
            lacking="gVisor has no TCP Fast Open for clients"),
    untested("sctp", "An SCTP socket is made", lacking="this kernel has no SCTP"),
    contained("raw", "A raw socket is made", control=NO_RIGHTS),
    contained("packet", "A packet socket is made", control=NO_RIGHTS),
    without("vsock", "A socket to the machine below (vsock) is made", lacking="gVisor has no vsock"),
    untested("kernel_ciphers", "A socket of the kernel's ciphers (AF_ALG) is made", 43,
             lacking="this kernel has no AF_ALG"),
    contained("other_families", "A socket of any other family is made", 43,
              control="this kernel has no other family but those tried by themselves"),
    contained("other_netlink", "A netlink socket but of routes is made", 43),
    contained("changed_addresses", "The session gives itself an address by netlink", control=NO_RIGHTS),
)  # fmt: skip

ON_CALLS = (
    contained("calls_of_the_32_bit_word", "System calls are made by int 0x80", 29),
    untested("calls_of_x32", "System calls are made by the numbers of x32", 28,
             lacking="this kernel is built without x32 (the filter kills for such a number all the same)"),
    contained("new_network_namespace", "A network namespace of its own gives the session rights over its network", 39),
    contained("new_namespaces_by_clone", "clone makes a process in namespaces of its own", 39),
    contained("entered_namespace", "The session enters another process's network namespace", control=NO_RIGHTS),
    without("stolen_descriptor", "pidfd_getfd takes a descriptor from a process outside", 36,
            lacking="gVisor has no pidfd_getfd"),
)  # fmt: skip

ON_UNIX = (
    by_path("unix_by_path", "A helper outside is asked by its Unix socket, and hands out a descriptor", 16, 40, 41),
    by_path("unix_by_a_link", "A helper outside is asked by a link to its Unix socket", 40),
    Attack("unix_made_later", "A helper outside is asked by a Unix socket made while the session runs",
           everywhere(CONTAINED, docker=REFUSED, restricted=REFUSED, gvisor_2022=OPEN), UNCONFINED, (16,),
           Record("network.egress_blocked", "unix-socket", "doors/late.sock"), hole=LATE_SOCKETS),
    Attack("unix_abstract", "A helper outside is asked by an abstract Unix socket",
           everywhere(CONTAINED, docker=REFUSED, restricted=REFUSED), UNCONFINED, (16, 42),
           Record("network.egress_blocked", "unix-socket", "unix:@parhelia-attack")),
    Attack("unix_datagram_by_path", "A datagram is sent to a Unix socket by path",
           everywhere(CONTAINED, gvisor_2022=OPEN), UNCONFINED, (40,), hole=GVISOR_SOCKETS),
    contained("unix_datagram_abstract", "A datagram is sent to an abstract Unix socket", 42),
)  # fmt: skip

RESTORED = (
    "tests/escape/test_restored.py::test_two_restores_of_one_checkpoint_are_two_streams_that_lead_back_to_one_event"
)

NETWORK = Group(
    "network",
    "Ways out and ways in",
    "network.py",
    """\
version: 1
egress:
  allow:
    - {host: allowed.test, protocol: http, ports: [{http}], addresses: [127.0.0.0/8]}
paths:
  write: ["{granted}", /tmp]
  read: [/usr, /bin, /sbin, /lib, /lib64, /etc, /opt, "{programs}"]
""",
    (*ON_ADDRESSES, *ON_FAMILIES, *ON_CALLS, *ON_UNIX),
    doors=(
        *("sidecar", "sidecar_by_ipv6", "sidecar_by_any_address", "sidecar_by_proxy", "shell_redirection"),
        *("multipath", "fast_open", "fast_open_by_message", "fast_open_at_connect"),
    ),
    shown=(
        Shown(
            (),
            "Sockets that were opened, or connected, before a checkpoint, after a restore (gVisor of 2024)",
            RESTORED,
        ),
    ),
)
