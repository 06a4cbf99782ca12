"""Packing: the same logits, kills at random moments, full disks, damage, and what is said of it."""
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import time

import harness

MODEL = harness.STORYTELLER
MANIFEST = "sluice.pack.json"
INDEX = "model.safetensors.index.json"
# Enough files that a kill finds some complete and some not.
SHARD = ("--shard-size", "1M")
KILLS = 50 if harness.SLOW else 8


def references():
    return [MODEL, *sorted(p.parent for p in harness.REFERENCES.glob("*/config.json"))]


def pack(sluice, model, folder, *options):
    """A pack that must succeed; gives what was said."""
    result = sluice.run("pack", model, folder, *options)
    if result.code != 0 or result.out:
        raise AssertionError(f"pack {model}: {result!r}")
    return result.err


def contents(folder):
    """{name: bytes} of a folder, without the manifest, which has times of the source."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}


def check_same_logits(tap, sluice, folder):
    for model in references():
        with tap.case(f"{model.name}: a pack gives the same logits") as complaints:
            vocab = json.loads((model / "config.json").read_text())
            vocab = vocab.get("text_config", vocab)["vocab_size"]
            ids = [i * 37 % min(vocab, 90) for i in range(40)]
            packed = folder / model.name
            pack(sluice, model, packed)
            out = folder / "out"
            out.mkdir(exist_ok=True)
            for precision in ("exact", "fast"):
                wanted = sluice.logits(model, ids, out, "--precision", precision, "--io", "mmap")
                wanted = wanted.read_bytes()
                for how in (("--io", "mmap"), ("--slots", 4), ("--slots", 7, "--io", "pread")):
                    got = sluice.logits(packed, ids, out, "--precision", precision, *how)
                    if got.read_bytes() != wanted:
                        complaints.append(f"{precision} {how} differs")
            shutil.rmtree(packed)


def check_reads(tap, sluice, folder):
    with tap.case("an expert is read with its pages and no more") as complaints:
        packed = folder / "reads"
        pack(sluice, MODEL, packed)
        info = sluice.good("inspect", packed, "--json").json
        pages = (info["bytes_per_expert"] + 4095) // 4096 * 4096
        n_experts = info["expert_bytes"] // info["bytes_per_expert"]
        if info["padding_bytes"] != n_experts * (pages - info["bytes_per_expert"]):
            complaints.append(f"{info['padding_bytes']} bytes of padding")
        result = sluice.run("run", packed, "--prompt", "Once", "-n", 8, "--slots", 16, "--json",
                            "--temperature", 0)
        stats = result.json["stats"]["engine"]
        least = stats["expert_misses"] * info["bytes_per_expert"]
        most = stats["expert_misses"] * pages
        if not 0 < least <= stats["bytes_read"] <= most:
            complaints.append(f"{stats}: not between {least} and {most}")
        small = sluice.good("inspect", harness.REFERENCES / "tied", "--json").json
        if small["padding_bytes"] != 0:
            complaints.append("padding in a model that is no pack")
        pack(sluice, harness.REFERENCES / "tied", folder / "tied")
        small = sluice.good("inspect", folder / "tied", "--json").json
        if small["padding_bytes"] == 0 or small["n_skipped_tensors"] != 0:
            complaints.append(f"{small['padding_bytes']} bytes of padding, "
                              f"{small['n_skipped_tensors']} skipped")


def check_messages(tap, sluice, folder):
    with tap.case("what pack says") as complaints:
        packed = folder / "messages"
        for options, word in (((), "packed "), ((), "was complete already"),
                              (("--verify",), "all of its checksums hold")):
            said = pack(sluice, MODEL, packed, *options)
            if word not in said or said.count("\n") != 1:
                complaints.append(f"{options}: {said!r} lacks {word!r}")
        shutil.rmtree(packed)
        said = pack(sluice, MODEL, packed, "--verify")
        if "all checksums hold" not in said:
            complaints.append(said)
        result = sluice.good("pack", MODEL, packed, "--json").json
        if result != {"folder": str(packed), "bytes_written": 0, "seconds": 0.0, "verified": False}:
            complaints.append(result)
        for args, code, word in (((), 2, "the model and the folder"), ((MODEL,), 2, "the folder"),
                                 ((MODEL, "a", "b"), 2, "'b'"),
                                 ((MODEL, harness.ROOT / "docs"), 1, "no pack"),
                                 ((MODEL, MODEL), 1, "is the model itself"),
                                 ((packed, packed), 1, "is the model itself")):
            result = sluice.run("pack", *args)
            if result.code != code or word not in result.err or result.err.count("\n") != 1:
                complaints.append(f"{args}: {result!r}")


def kill_at_random(sluice, packed, longest, rng):
    """Packs and kills; gives whether it had ended before."""
    process = sluice.start("pack", MODEL, packed, *SHARD)
    time.sleep(rng.uniform(0, longest))
    ended = process.poll() is not None
    process.kill()
    process.communicate()
    return ended


def check_kills(tap, sluice, folder):
    with tap.case(f"killed at {KILLS} random moments, packing goes on") as complaints:
        good = folder / "good"
        began = time.monotonic()
        pack(sluice, MODEL, good, *SHARD)
        longest = (time.monotonic() - began) * 0.8
        wanted = contents(good)
        first = min(name for name in wanted if name.endswith(".safetensors"))
        rng = random.Random(2)
        packed = folder / "killed"
        n_killed = n_kept = n_complete = 0
        while n_killed < KILLS and not complaints:
            n_killed += not kill_at_random(sluice, packed, longest, rng)
            found = contents(packed) if packed.exists() else {}
            for name, data in found.items():
                if not name.startswith(".") and data != wanted.get(name):
                    complaints.append(f"after kill {n_killed}: {name} is there but not whole")
            n_kept += first in found
            if "config.json" in found:
                n_complete += 1
                if set(found) != set(wanted):
                    complaints.append(f"config.json is there before {set(wanted) - set(found)}")
            if rng.random() < 0.5:
                pack(sluice, MODEL, packed, "--verify", *SHARD)
                if contents(packed) != wanted:
                    complaints.append(f"after kill {n_killed}: the pack differs")
                shutil.rmtree(packed)
        if packed.exists():
            pack(sluice, MODEL, packed, "--verify", *SHARD)
            if contents(packed) != wanted:
                complaints.append("the pack differs")
        if n_kept < KILLS // 5:
            complaints.append(f"only {n_kept} kills found a shard: nothing was tested")
        print(f"# {n_killed} kills, {n_kept} with shards, {n_complete} complete")


def check_interrupt(tap, sluice, folder):
    with tap.case("Ctrl-C ends cleanly and says how to go on") as complaints:
        packed = folder / "interrupted"
        process = sluice.start("pack", MODEL, packed, "--shard-size", "100K")
        while not list(packed.glob("model-00003-of-*")) and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        err = err.decode()
        if process.returncode != 128 + signal.SIGINT or err.count("\n") != 1:
            complaints.append(f"exit {process.returncode}: {err}")
        if "was stopped" not in err or "shards are complete" not in err:
            complaints.append(err)
        if list(packed.glob(".*.part")):
            complaints.append("a temporary file is left")
        result = sluice.run("inspect", packed)
        if result.code != 1 or "not complete" not in result.err:
            complaints.append(f"{result!r}")
        pack(sluice, MODEL, packed, "--verify")


def limited(limit):
    """Files above limit bytes are refused, as by a disk that is full."""
    def apply():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    return apply


def check_file_limit(tap, sluice, folder):
    with tap.case("a file that cannot be written") as complaints:
        packed = folder / "limited"
        for limit, n in ((6 << 20, 1), (100, 1), (100000, 1)):
            done = subprocess.run(sluice.argv(("pack", MODEL, packed)), check=False,
                                  preexec_fn=limited(limit), capture_output=True, timeout=60)
            err = done.stderr.decode()
            if done.returncode != 1 or "File too large" not in err or err.count("\n") != 1:
                complaints.append(f"exit {done.returncode}: {err}")
            if f"{n} of 2 shards are complete" not in err:
                complaints.append(err)
        pack(sluice, MODEL, packed, "--verify")


def mount(folder, size):
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)],
                          capture_output=True, check=False)
    return done.returncode == 0


def fill(path):
    """Takes all the room that is left."""
    with open(path, "wb", buffering=0) as file:
        try:
            while file.write(bytes(1 << 16)):
                pass
        except OSError:
            pass


def check_full_disk(tap, sluice, folder):
    name = "a full disk"
    disk = folder / "disk"
    if os.geteuid() != 0 or not shutil.which("mount") or not mount(disk, "24m"):
        tap.skip(name, "no file system can be mounted")
        return
    try:
        with tap.case(name) as complaints:
            packed = disk / "packed"
            (disk / "other").write_bytes(bytes(8 << 20))
            result = sluice.run("pack", MODEL, packed)
            if result.code != 1 or "are needed, but only" not in result.err:
                complaints.append(f"{result!r}")
            if list(packed.iterdir()):
                complaints.append("something was written although there is no room")
            (disk / "other").unlink()
            process = sluice.start("pack", MODEL, packed, "--shard-size", "100K")
            while not list(packed.glob("model-00003-of-*")) and process.poll() is None:
                time.sleep(0.001)
            fill(disk / "other")
            _, err = process.communicate(timeout=60)
            err = err.decode()
            if process.returncode != 1 or "No space left" not in err or "goes on" not in err:
                complaints.append(f"exit {process.returncode}: {err}")
            (disk / "other").unlink()
            pack(sluice, MODEL, packed, "--verify")
            wanted = folder / "undisturbed"
            pack(sluice, MODEL, wanted, "--shard-size", "100K")
            if contents(packed) != contents(wanted):
                complaints.append("the pack differs")
    finally:
        subprocess.run(["umount", str(disk)], check=False)


def check_damage(tap, sluice, folder):
    with tap.case("one flipped bit is found, and packing again repairs it") as complaints:
        packed = folder / "damaged"
        pack(sluice, MODEL, packed)
        tensors = sluice.good("inspect", packed, "--tensors", "--json").json["tensors"]
        expert = next(t for t in tensors if ".layers.5.mlp.experts.9.down_proj.weight" in t["name"])
        path = packed / expert["file"]
        with open(path, "r+b") as file:
            file.seek(expert["offset"] + 100)
            byte = file.read(1)[0]
            file.seek(expert["offset"] + 100)
            file.write(bytes([byte ^ 1]))
        words = ("layer 5, expert 9", expert["name"], "damaged")
        for args in (("pack", MODEL, packed, "--verify"),
                     ("run", packed, "--prompt", "Once upon a time", "-n", 40, "--preload")):
            result = sluice.run(*args)
            if result.code != 1 or any(word not in result.err for word in words):
                complaints.append(f"{args[0]}: {result!r}")
        sluice.good("run", packed, "--prompt", "Once upon a time", "-n", 4, "--preload",
                    "--no-verify")
        path.unlink()
        pack(sluice, MODEL, packed, "--verify")
        sluice.good("run", packed, "--prompt", "Once upon a time", "-n", 4, "--preload")


def check_changed_source(tap, sluice, folder):
    with tap.case("a model that has changed") as complaints:
        model = harness.copy_model(harness.REFERENCES / "tied", folder / "model")
        packed = folder / "changed"
        pack(sluice, model, packed)
        os.utime(model / "model.safetensors", (1, 1))
        result = sluice.run("pack", model, packed)
        if result.code != 1 or "has changed since" not in result.err:
            complaints.append(f"{result!r}")


def check_folder(tap, sluice, folder):
    with tap.case("a pack is an ordinary model folder") as complaints:
        packed = folder / "ordinary"
        pack(sluice, MODEL, packed, *SHARD)
        index = json.loads((packed / INDEX).read_text())
        sizes, size = {}, 0
        for path in sorted(packed.glob("model-*.safetensors")):
            data = path.read_bytes()
            n = int.from_bytes(data[:8], "little")
            header = json.loads(data[8:8 + n])
            header.pop("__metadata__")
            size += len(data) - 8 - n
            if (8 + n) % 4096:
                complaints.append(f"{path.name}: the data begin at {8 + n}")
            if max(e["data_offsets"][1] for e in header.values()) != len(data) - 8 - n:
                complaints.append(f"{path.name}: bytes behind the last tensor")
            for name in header:
                sizes[name] = path.name
        if index["weight_map"] != sizes or index["metadata"]["total_size"] != size:
            complaints.append("the index does not say what is in the files")
        for name in ("config.json", "generation_config.json", "tokenizer.json",
                     "tokenizer_config.json", "chat_template.jinja"):
            if (packed / name).read_bytes() != (MODEL / name).read_bytes():
                complaints.append(name)


def tests(tap, sluice):
    with harness.temporary_folder() as folder:
        for check in (check_same_logits, check_reads, check_folder, check_messages, check_kills,
                      check_interrupt, check_file_limit, check_full_disk, check_damage,
                      check_changed_source):
            check(tap, sluice, folder)


if __name__ == "__main__":
    harness.main(tests)
