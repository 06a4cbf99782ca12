"""What the end-to-end tests share: TAP output, safetensors files, and running the program."""
import argparse
import array
import contextlib
import json
import math
import os
import pathlib
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[2]
REFERENCES = ROOT / "tests" / "reference"
STORYTELLER = ROOT / "models" / "storyteller"
# Files too large for the repository may lie beside it; tests that need them are skipped otherwise.
SHARED = ROOT.parent / "shared" / "storyteller"
SHARED_REFERENCES = ROOT.parent / "shared" / "reference"
# 0 shortens what takes long, for builds with sanitizers.
SLOW = os.environ.get("SLUICE_TEST_SLOW", "1") != "0"
THOROUGH = os.environ.get("SLUICE_TEST_SLOW") == "2"
TIMEOUT = 900

# dtype of safetensors -> code of array
CODES = {"F32": "f", "F64": "d", "I64": "q", "I32": "i"}


class Tap:
    """Counts and prints cases; a case that raises has failed."""

    def __init__(self):
        self.n = 0
        self.n_failed = 0

    def ok(self, good, name, detail=""):
        self.n += 1
        self.n_failed += not good
        print(f"{'ok' if good else 'not ok'} {self.n} - {name}")
        if not good and detail != "":
            for line in str(detail).splitlines()[:40]:
                print(f"# {line[:1000]}")
        sys.stdout.flush()
        return good

    def skip(self, name, why):
        self.n += 1
        print(f"ok {self.n} - {name} # SKIP {why}", flush=True)

    @contextlib.contextmanager
    def case(self, name):
        """Yields a list of complaints; the case is good when it stays empty."""
        complaints = []
        try:
            yield complaints
        except Exception:  # a broken case must not end the others
            complaints.append(traceback.format_exc())
        self.ok(not complaints, name, "\n".join(map(str, complaints)))

    def finish(self):
        print(f"1..{self.n}", flush=True)
        return 1 if self.n_failed else 0


class Result:
    def __init__(self, code, out, err):
        self.code = code
        self.out = out  # bytes
        self.err = err.decode("utf-8", "replace")

    @property
    def text(self):
        return self.out.decode("utf-8", "replace")

    @property
    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"exit {self.code}\nstdout: {self.out[:600]!r}\nstderr: {self.err[:1200]}"


class Sluice:
    def __init__(self, path):
        self.path = os.path.realpath(path)

    def argv(self, args):
        return [self.path, *map(str, args)]

    def run(self, *args, stdin=b"", env=None, stdout=subprocess.PIPE):
        """Runs to the end. stdin: bytes."""
        full_env = None if env is None else {**os.environ, **env}
        done = subprocess.run(self.argv(args), input=stdin, stdout=stdout, stderr=subprocess.PIPE,
                              timeout=TIMEOUT, env=full_env, check=False)
        return Result(done.returncode, done.stdout or b"", done.stderr)

    def good(self, *args, **kwargs):
        """Runs and insists on success without messages."""
        result = self.run(*args, **kwargs)
        if result.code != 0 or result.err:
            raise AssertionError(f"{' '.join(map(str, args))}: {result!r}")
        return result

    def start(self, *args, **kwargs):
        """Starts the program; Ctrl-C works in it even where it does not work here."""
        return subprocess.Popen(
            self.argv(args), stdin=subprocess.DEVNULL, stdout=kwargs.pop("stdout", subprocess.PIPE),
            stderr=kwargs.pop("stderr", subprocess.PIPE),
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **kwargs)

    def logits(self, model, ids, folder, *options):
        """Evaluates ids; returns the path of the file that was written."""
        out = pathlib.Path(folder) / "logits.safetensors"
        self.good("logits", model, "--ids", "-", "--out", out, *options, stdin=id_text(ids))
        return out

    def greedy(self, model, ids, n, *options):
        """n ids that follow ids at temperature 0."""
        result = self.good("run", model, "--ids", "-", "--print-ids", "--temperature", 0,
                           "--ignore-eos", "-n", n, *options, stdin=id_text(ids))
        return [int(word) for word in result.out.split()]


def id_text(ids):
    return " ".join(map(str, ids)).encode()


class Tensor:
    def __init__(self, shape, values):
        self.shape = shape
        self.values = values

    def rows(self, first, last):
        width = math.prod(self.shape[1:])
        return self.values[first * width:last * width]


def read_safetensors(path):
    """(metadata, {name: Tensor}) of a file whose dtypes array knows."""
    data = pathlib.Path(path).read_bytes()
    (n,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + n])
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        values = array.array(CODES[entry["dtype"]])
        values.frombytes(data[8 + n + begin:8 + n + end])
        if len(values) != math.prod(entry["shape"]):
            raise ValueError(f"{path}: {name}: shape and size differ")
        tensors[name] = Tensor(entry["shape"], values)
    return metadata, tensors


def standard_deviation(values):
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / len(values))


def largest_difference(a, b):
    """The largest |a - b|; infinite when lengths differ or something is not finite."""
    if len(a) != len(b):
        return math.inf
    worst = 0.0
    for x, y in zip(a, b):
        d = abs(x - y)
        if not d <= worst:
            if not math.isfinite(d):
                return math.inf
            worst = d
    return worst


@contextlib.contextmanager
def temporary_folder():
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as name:
        yield pathlib.Path(name)


def copy_model(source, target, *leave_out):
    """A copy of a model folder whose files may be changed."""
    target.mkdir()
    for file in source.iterdir():
        if file.name not in leave_out:
            shutil.copyfile(file, target / file.name)
    return target


def main(tests):
    """Runs tests(tap, sluice) on the program named by --sluice."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--sluice", required=True, help="the program under test")
    # Whoever runs the tests may ignore it, as nohup does, and programs inherit that.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    tap = Tap()
    tests(tap, Sluice(parser.parse_args().sluice))
    sys.exit(tap.finish())
