"""The program and its surroundings: pipes, descriptors, signals, terminals."""
import json
import os
import pty
import re
import select
import signal
import subprocess
import time

import harness

MODEL = harness.STORYTELLER
TINY = harness.REFERENCES / "qwen3_5_moe"  # has no tokenizer
PROMPT = "Once upon a time there was"
GREEDY = ("--temperature", 0)


def check_streams(tap, sluice):
    long = ("run", MODEL, "--prompt", PROMPT, "--ignore-eos", "-n", 400)
    with tap.case("a reader that closes the pipe ends the program quietly") as complaints:
        process = sluice.start(*long)
        first = process.stdout.read(10)
        process.stdout.close()
        err = process.stderr.read()
        code = process.wait(harness.TIMEOUT)
        process.stderr.close()
        if len(first) != 10 or code != 0 or err:
            complaints.append(f"exit {code}, {first!r}, {err!r}")
    with tap.case("text comes as it is produced") as complaints:
        process = sluice.start(*long)
        pieces = []
        running = False
        while piece := os.read(process.stdout.fileno(), 1 << 16):
            running = running or (not pieces and process.poll() is None)
            pieces.append(piece)
        process.wait(harness.TIMEOUT)
        process.stdout.close()
        process.stderr.close()
        if len(pieces) < 20 or not running:
            complaints.append(f"{len(pieces)} pieces, still running after the first: {running}")
        b"".join(pieces).decode()
    with tap.case("Ctrl-C ends run with what was printed") as complaints:
        for options in ((), ("--json",), ("--print-ids",)):
            process = sluice.start("run", MODEL, "--prompt", PROMPT, "--ignore-eos", "-n", 4000,
                                   *options)
            out = b"" if options == ("--json",) else os.read(process.stdout.fileno(), 100)
            if not out:
                time.sleep(1)
            process.send_signal(signal.SIGINT)
            rest, err = process.communicate(timeout=harness.TIMEOUT)
            out += rest
            if process.returncode != 130 or err or not out:
                complaints.append(f"{options}: exit {process.returncode}, {out[-80:]!r}, {err!r}")
            if options == ("--json",) and json.loads(out)["finish_reason"] != "cancelled":
                complaints.append(out)
            if options == ("--print-ids",) and not re.fullmatch(rb"(\d+ )*\d+\n", out):
                complaints.append(out)
    with tap.case("a signal ends logits without leaving a file") as complaints:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            interrupt_logits(sluice, number, complaints)


def interrupt_logits(sluice, number, complaints):
    with harness.temporary_folder() as folder:
        (folder / "ids").write_text(" ".join(str(i % 8000) for i in range(4000)))
        process = sluice.start("logits", MODEL, "--ids", folder / "ids", "--out", folder / "out",
                               "--chunk", 4, "--threads", 1)
        while len(list(folder.iterdir())) < 2 and process.poll() is None:
            time.sleep(0.005)
        process.send_signal(number)
        out, err = process.communicate(timeout=harness.TIMEOUT)
        if process.returncode != 128 + number or out or err:
            complaints.append(f"signal {number}: exit {process.returncode} {out!r} {err!r}")
        if [f.name for f in folder.iterdir()] != ["ids"]:
            complaints.append(list(folder.iterdir()))


def closed(sluice, descriptors, *args):
    """Runs with these descriptors closed; (exit code, standard error)."""
    process = subprocess.run(["/bin/sh", "-c", f'exec "$0" "$@" {descriptors}', sluice.path,
                              *map(str, args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE, timeout=harness.TIMEOUT, check=False)
    return process.returncode, process.stderr.decode()


def check_closed(tap, sluice):
    """No file that is opened later may get the number of a closed descriptor."""
    with tap.case("closed descriptors are no files of the model") as complaints:
        for args in (("run", MODEL, "--prompt-file", "-", "-n", 1), ("tokenize", MODEL),
                     ("logits", MODEL, "--ids", "-", "--out", "/dev/null")):
            got = closed(sluice, "<&-", *args)
            if got != (1, "sluice: standard input: Bad file descriptor\n"):
                complaints.append(f"{args[0]} without standard input: {got}")
        with harness.temporary_folder() as folder:
            (folder / "ids").write_text("1 2 3")
            args = ("logits", TINY, "--ids", folder / "ids", "--out", folder / "out", "--json")
            if closed(sluice, "2>&-", *args, "--stats") != (0, ""):
                complaints.append("standard error is needed")
            want = (folder / "out").read_bytes()
            got = closed(sluice, ">&-", *args)
            if got != (1, "sluice: standard output: Bad file descriptor\n"):
                complaints.append(f"without standard output: {got}")
            if closed(sluice, "<&- >&- 2>&-", *args) != (1, ""):
                complaints.append("without any of them")
            if (folder / "out").read_bytes() != want:
                complaints.append("messages went into the result")


def on_terminal(sluice, *args, stream):
    """Runs with standard output or error on a terminal; (exit code, what the terminal got)."""
    ours, theirs = pty.openpty()
    other = "stderr" if stream == "stdout" else "stdout"
    process = sluice.start(*args, **{stream: theirs, other: subprocess.DEVNULL})
    os.close(theirs)
    shown = b""
    while True:
        ready, _, _ = select.select([ours], [], [], harness.TIMEOUT)
        try:
            piece = os.read(ours, 4096) if ready else b""
        except OSError:  # the other side is closed
            piece = b""
        if not piece:
            break
        shown += piece
    os.close(ours)
    return process.wait(harness.TIMEOUT), shown.replace(b"\r\n", b"\n")


def check_terminal(tap, sluice):
    with tap.case("on a terminal the last line is ended") as complaints:
        common = ("run", MODEL, "--prompt", PROMPT, *GREEDY, "-n", 5)
        code, shown = on_terminal(sluice, *common, stream="stdout")
        if code or shown != sluice.good(*common).out + b"\n":
            complaints.append(f"exit {code}, {shown!r}")
    with tap.case("a progress line appears on a terminal and goes away") as complaints:
        with harness.temporary_folder() as folder:
            n = 3000 if harness.SLOW else 500
            (folder / "ids").write_text(" ".join(str(i % 8000) for i in range(n)))
            began = time.monotonic()
            code, shown = on_terminal(sluice, "perplexity", MODEL, "--ids", folder / "ids",
                                      "--chunk", 1, "--threads", 1, stream="stderr")
            lasted = time.monotonic() - began
            if code:
                complaints.append(f"exit {code}")
            if lasted > 2 and (b"left" not in shown or b"/s" not in shown):
                complaints.append(f"after {lasted:.1f} s: {shown[-300:]!r}")
            if shown and not re.search(rb"\r +\r$", shown):
                complaints.append(f"is not wiped: {shown[-300:]!r}")


def tests(tap, sluice):
    for check in (check_streams, check_closed, check_terminal):
        check(tap, sluice)


harness.main(tests)
