"""What enforcing takes, each tried in a network namespace of its own that ends with the trial."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from compose.doctor.finding import Finding
from compose.lab.capability import user_namespace_obstacles
from enforcers.kernel.sets import set_trial

PROGRAMS: Final = {
    "iptables-nft-restore": "apt install iptables",
    "ip6tables-nft-restore": "apt install iptables",
    "ipset": "apt install ipset",
}
LAB_PROGRAMS: Final = {
    "nsenter": "apt install util-linux; only the lab needs it",
    "ip": "apt install iproute2; only the lab needs it",
    "conntrack": "apt install conntrack; only the lab needs it",
}
HELPFUL: Final = {"NET_BROADCAST"}
"""Without it others' changes of rules are found all the same, by turns."""
CAPABILITIES: Final = {"NET_ADMIN": 12, "SYS_ADMIN": 21, "NET_RAW": 13, "NET_BROADCAST": 11}
SET_TYPES: Final = {"hash:ip": "ip_set_hash_ip", "hash:net": "ip_set_hash_net", "hash:ip,port": "ip_set_hash_ipport"}
FAMILIES: Final = {"IPv4": ("inet", "iptables-nft-restore"), "IPv6": ("inet6", "ip6tables-nft-restore")}
RULES: Final = {
    "comments": ("-m comment --comment x -j RETURN", "xt_comment"),
    "connection tracking": ("-m conntrack --ctdir ORIGINAL -j RETURN", "nf_conntrack, xt_conntrack"),
    "connection marks": ("-m connmark --mark 0x10000000/0x10000000 -j RETURN", "xt_connmark"),
    "setting connection marks": ("-j CONNMARK --set-xmark 0x10000000/0x10000000", "xt_CONNMARK"),
    "port lists": ("-p tcp -m multiport --dports 1,2:3 -j RETURN", "xt_multiport"),
    "address sets": ("-m set --match-set eastwest-doctor src -j RETURN", "xt_set, ip_set_hash_ip"),
}
TRIAL_SECONDS: Final = 20.0


def examine(runtime: str) -> Iterator[Finding]:
    """Every finding, one after the other. *runtime*: the socket of containerd. Changes nothing that outlives it."""
    for program, remedy in {**PROGRAMS, **LAB_PROGRAMS}.items():
        path, needed = shutil.which(program), program in PROGRAMS
        yield Finding(what=program, ok=path is not None, needed=needed, detail=path or "not installed", remedy=remedy)
    yield _backend()
    lacking = _lacking_capabilities()
    yield Finding(
        what="capabilities",
        ok=not lacking,
        needed=set(lacking) != HELPFUL,
        detail=f"lacks {', '.join(lacking)}" if lacking else ", ".join(CAPABILITIES),
        remedy="run the enforcer as root, or with these capabilities; the lab works without them (user namespaces)",
    )
    alone = ["unshare", "-n", "--"] if set(lacking) <= HELPFUL else ["unshare", "-Urnm", "--"]
    trouble = _try([*alone, "true"])
    yield Finding(
        what="network namespaces", ok=not trouble, detail=trouble, remedy="a kernel with CONFIG_NET_NS, as root"
    )
    for name, (family, restore) in FAMILIES.items():
        for type_, module in SET_TYPES.items():
            trouble = _try([*alone, "ipset", "create", "eastwest-doctor", type_, "family", family])
            yield Finding(
                what=f"{name} sets {type_}", ok=not trouble, detail=trouble, remedy=f"modprobe {module} on the host"
            )
        for what, (rule, modules) in RULES.items():
            trouble = _try([*alone, "sh", "-c", _trial(family, restore, rule)])
            remedy = f"modules {modules} on the host, and nf_tables with nft_compat"
            yield Finding(what=f"{name} {what}", ok=not trouble, detail=trouble, remedy=remedy)
    trouble = _try([*alone, sys.executable, "-m", set_trial.__name__])
    yield Finding(
        what="sets by netlink",
        ok=not trouble,
        needed=False,
        detail=trouble,
        remedy="nothing: the enforcer sees it as well, and uses the ipset tool, which is slower",
    )
    obstacles = user_namespace_obstacles()
    yield Finding(
        what="user namespaces",
        ok=not obstacles,
        needed=False,
        detail="; ".join(each.what for each in obstacles),
        remedy="; ".join(each.remedy for each in obstacles) or "only the lab without root needs them",
    )
    yield Finding(
        what="containerd",
        ok=Path(runtime).is_socket(),
        needed=False,
        detail=runtime if Path(runtime).is_socket() else f"no socket {runtime}",
        remedy="name its socket by --runtime; the lab needs none",
    )


def _backend() -> Finding:
    trouble = _try(["iptables-nft", "--version"])
    return Finding(
        what="iptables by nf_tables", ok=not trouble, detail=trouble, remedy="apt install iptables, 1.8 or newer"
    )


def _lacking_capabilities() -> list[str]:
    status = Path("/proc/self/status").read_text()
    held = int(next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), 16)
    return [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]


def _trial(family: str, restore: str, rule: str) -> str:
    text = f"*mangle\\n:EW-DOCTOR - [0:0]\\n-A EW-DOCTOR {rule}\\nCOMMIT\\n"
    prepare = f"ipset create eastwest-doctor hash:ip family {family} && " if "--match-set" in rule else ""
    return f"{prepare}printf '{text}' | {restore} --noflush"


def _try(command: list[str]) -> str:
    """Why *command* fails; empty where it does not."""
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TRIAL_SECONDS, env=environment
        )
    except FileNotFoundError:
        return f"{command[0]} is not installed"
    except subprocess.TimeoutExpired:
        return f"no answer within {TRIAL_SECONDS:.0f} s"
    if not done.returncode:
        return ""
    return (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[0]
