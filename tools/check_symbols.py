#!/usr/bin/env python3
"""
Fails when a library defines a global symbol that does not begin with sluice_, or none at all.
usage: check_symbols.py NM LIBRARY...
"""
import subprocess
import sys


def global_symbols(nm, library):
    table = ["--dynamic"] if ".so" in library else []
    out = subprocess.run([nm, *table, "--defined-only", "--extern-only", "--format=posix", library],
                         capture_output=True, text=True, check=True).stdout
    rows = (line.split() for line in out.splitlines())
    return [row[0] for row in rows if len(row) >= 2]


def main():
    nm, *libraries = sys.argv[1:]
    bad = 0
    for library in libraries:
        symbols = global_symbols(nm, library)
        strange = [name for name in symbols if not name.startswith("sluice_")]
        print(f"{library}: {len(symbols)} symbols", *strange, sep="\n  ")
        bad += bool(strange) or not symbols
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
