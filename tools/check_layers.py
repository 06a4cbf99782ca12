#!/usr/bin/env python3
"""Fails when a source file includes a header of a layer it may not see (rules: layers.txt)."""
import argparse
import pathlib
import re
import sys

INCLUDE = re.compile(r'\s*#\s*include\s+"([^"]+)"')


def read_rules(path):
    rules = {}
    for row in path.read_text().splitlines():
        names = row.split("#")[0].split()
        if names:
            rules[names[0]] = set(names)
    return rules


def layer_of(path):
    if path.parts[0] == "src":
        return path.parts[1]
    return {"apps": "apps", "include": "public"}[path.parts[0]]


def violations(root, rules):
    files = (p.relative_to(root) for top in ("src", "apps", "include")
             for p in (root / top).rglob("*") if p.suffix in (".c", ".h", ".def"))
    for path in sorted(files):
        layer = layer_of(path)
        if layer not in rules:
            yield f"{path}: layer '{layer}' has no row in layers.txt"
            continue
        for n, line in enumerate((root / path).read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            head, *rest = match[1].split("/")
            if ".." in (head, *rest):
                yield f"{path}:{n}: '{match[1]}' climbs out of its folder"
                continue
            target = "public" if head == "sluice" else head if rest else layer
            if not {target, match[1]} & rules[layer]:
                yield f"{path}:{n}: {layer} may not include '{match[1]}'"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=pathlib.Path, default=pathlib.Path("."))
    root = parser.parse_args().root
    found = list(violations(root, read_rules(pathlib.Path(__file__).with_name("layers.txt"))))
    print("\n".join(found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
