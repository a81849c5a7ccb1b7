"""What the kernel holds of ours in every Pod of a lab, as text that is equal where the meaning is."""

import re
import subprocess

from compose.lab.plan import Plan

_CHANCE = re.compile(r" (?:initval 0x[0-9a-f]+|(?:hashsize|bucketsize) \d+)")
_OF_LINKS = "add ew-node-6 fe80:"
"""A node's own addresses on its links follow from hardware addresses, which are random."""


def held(plan: Plan) -> dict[str, list[str]]:
    """By Pod (``namespace/name``): chains, rules and sets, sorted, without counters and what the kernel chooses.

    A lab's Pods have no rules but ours, so everything is compared, but for the kernel's own chains: the tool makes them
    with the first rule and leaves them, empty, after the last.
    """
    return {pod.key: _held(pod.netns) for pod in plan.pods if pod.link}


def _held(netns: str) -> list[str]:
    lines: list[str] = []
    for tool in ("iptables-nft-save", "ip6tables-nft-save"):
        shown = _inside(netns, tool).splitlines()
        lines += sorted(f"{tool}: {line.split(' [')[0]}" for line in shown if line.startswith(("-A ", ":EW-")))
    shown = _inside(netns, "ipset", "save").splitlines()
    return lines + sorted(f"ipset: {_CHANCE.sub('', line)}" for line in shown if not line.startswith(_OF_LINKS))


def _inside(netns: str, *command: str) -> str:
    done = subprocess.run(["ip", "netns", "exec", netns, *command], check=True, capture_output=True, text=True)
    return done.stdout


def differences(found: dict[str, list[str]], wanted: dict[str, list[str]]) -> list[str]:
    """Every line that one has and the other has not, as ``Pod: - line`` (missing) or ``Pod: + line``."""
    lines = []
    for pod in sorted(found.keys() | wanted.keys()):
        here, there = found.get(pod, []), wanted.get(pod, [])
        lines += [f"{pod}: - {line}" for line in there if line not in here]
        lines += [f"{pod}: + {line}" for line in here if line not in there]
    return lines
