#!/usr/bin/env python3
"""Fails when a loop that measures the integer units (loop_*, apps/bench_peak.c) goes to memory.

Such a loop is to be limited by its products. Where the compiler keeps the sums in an array in
memory, loads and stores limit it, and the peak comes out at a fraction of what it is.
usage: check_loops.py OBJDUMP PROGRAM
"""
import re
import subprocess
import sys

FUNCTION = re.compile(r"^[0-9a-f]+ <(loop_\w+)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(\S+)\s*(.*)$")
# An address in parentheses (x86) or brackets (ARM); lea and nop only look like one.
MEMORY = re.compile(r"[(\[]")
NO_ACCESS = ("lea", "nop")


def functions(listing):
    """The instructions of each loop_* function: (address, name, operands)."""
    found, name = {}, None
    for line in listing.splitlines():
        head, row = FUNCTION.match(line), INSTRUCTION.match(line)
        if head:
            name = head.group(1)
            found[name] = []
        elif not line.strip():
            name = None
        elif name and row:
            found[name].append((int(row.group(1), 16), row.group(2), row.group(3)))
    return found


def loop_body(rows):
    """What the function's longest backward jump repeats."""
    body = []
    for at, name, operands in rows:
        target = re.search(r"\b(?:0x)?([0-9a-f]+)\s+<", operands)
        if (name.startswith(("j", "b", "cb", "tb")) and target
                and int(target.group(1), 16) < at):
            repeated = [r for r in rows if int(target.group(1), 16) <= r[0] <= at]
            body = max(body, repeated, key=len)
    return body


def violations(listing):
    found = functions(listing)
    if not found:
        yield "no function loop_* was found"
    for name, rows in sorted(found.items()):
        body = loop_body(rows)
        if not body:
            yield f"{name}: no loop was found"
        for at, instruction, operands in body:
            if MEMORY.search(operands) and not instruction.startswith(NO_ACCESS):
                yield f"{name}: {at:x}: {instruction} {operands}"


def main():
    objdump, program = sys.argv[1:]
    listing = subprocess.run([objdump, "-d", "--no-show-raw-insn", program], capture_output=True,
                             text=True, check=True).stdout
    found = list(violations(listing))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
