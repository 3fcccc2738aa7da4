"""What happens to a process that predicts: it is forked, its interpreter ends, it gets no threads. It never hangs.

Each test is a process of its own, ended after a minute: what it claims is that there is no need.
"""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ziggurat import native

if native.why_missing():
    pytest.skip(native.why_missing(), allow_module_level=True)

from tests.kit.questions import save_span_folder
from ziggurat.encoder import Manifest
from ziggurat.small import BilstmTier, save_small

SECONDS = 60
PIECES = 54  # in the vocabulary of conftest's tokenizer

# What all programs begin with: `ask(n)` answers n times twenty inputs.
BEGINNING = f"""
import atexit, os, resource, sys, threading, time
import ziggurat
from ziggurat.engine.opened import OpenedModel

folder, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
words = "bat kish lor mulm nend poss rat".split()
texts = [" ".join(words[(i * j) % 7] for j in range(1 + i)) for i in range(20)]
opener = OpenedModel if kind == "questions" else ziggurat.AdaptiveModel
model = opener.from_pretrained(folder, "cpu", threads=threads, backend="native")

def ask(n=1):
    if kind == "questions":
        return [a.score for a in model.answer([(text, text) for text in texts] * n, "full")]
    return [a.probabilities.tobytes() for a in model.answer(texts * n, "full")]

def wait_for(child, seconds={SECONDS / 2}):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, 9)
    raise AssertionError("a child does not end")

def limit_threads(most):
    # As a user whom nobody else is, since the limit is one of all that a user runs.
    if os.getuid() == 0:
        os.setgid(200_000 + os.getpid())
        os.setuid(200_000 + os.getpid())
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
"""


def run_program(program: str, folder, kind: str = "encoder", threads: int = 3, **environment: str):
    """What a program prints that has ended well, without a word of complaint."""
    command = [sys.executable, "-W", "ignore", "-c", BEGINNING + program, str(folder), kind, str(threads)]
    inherited = {name: value for name, value in os.environ.items() if name != "RUST_BACKTRACE"}
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True, env=inherited | environment)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done


@pytest.fixture(scope="module")
def folders(pruned_folder, static_folder, cascade_folder, tiny_checkpoint, make_checkpoint, tmp_path_factory):
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    rows = rng.integers(0, 9, PIECES).astype(np.int16)
    tier = BilstmTier(
        rows, normal(9, 5), normal(2, 5), normal(2, 24, 12), normal(2, 24, 19), normal(7, 13), normal(3, 8)
    )
    labels = "river", "stone", "tower"
    manifest = Manifest(labels, False, 24, "none", (), "", kind="bilstm")
    bilstm = tmp_path_factory.mktemp("bilstm") / "model"
    save_small(tier, manifest, np.array([3], dtype=np.uint64), tiny_checkpoint, bilstm)
    questions = save_span_folder(tmp_path_factory.mktemp("questions"), make_checkpoint)
    folders = {"encoder": pruned_folder, "static": static_folder, "bilstm": bilstm, "cascade": cascade_folder}
    return folders | {"questions": questions}


# Its own memory's locks are left behind in a child (GCC 12's runtime).
under_asan = pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="ASan is not made for forks")
KINDS = ["encoder", "static", "bilstm", "cascade", "questions"]

FORKS = """
before = ask()
going = [True]

def work():
    while going:
        ask(5)

worker = threading.Thread(target=work)
worker.start()
for _ in range(8):
    child = os.fork()
    if child == 0:
        os._exit(0 if ask() == before else 1)
    assert wait_for(child) == 0
going.clear()
worker.join()
assert ask() == before
"""


@under_asan
@pytest.mark.parametrize("switch", ["true", "false"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_child_forked_during_a_prediction_answers(folders, kind, switch):
    run_program(FORKS, folders[kind], kind, TOKENIZERS_PARALLELISM=switch)


FORKED_BY_ARRIVALS = """
import copy
other = copy.deepcopy(model)
before = ask()
ways = []

def arrivals():
    yield texts[:9]
    ways.append(os.fork())
    yield texts[9:]

answers = sorted(model.stream(arrivals(), "full"))
assert [a.probabilities.tobytes() for _, a in answers] == before
if ways == [0]:  # what goes on in the child, and in a child of that
    child = os.fork()
    assert ask() == before == [a.probabilities.tobytes() for a in other.answer(texts, "full")]
    sys.exit(wait_for(child) if child else 0)
assert wait_for(ways[0]) == 0
"""


def test_a_stream_that_is_forked_on_its_way_is_answered_in_both(folders):
    run_program(FORKED_BY_ARRIVALS, folders["encoder"])


ENDS_UNUSED = """
ask()
child = os.fork()
if child == 0:
    sys.exit(7)  # takes the model apart, as the end of every program does
assert wait_for(child) == 7
child = os.fork()
if child == 0:
    del model
    os.execv(sys.executable, [sys.executable, "-c", ""])
assert wait_for(child) == 0
"""


def test_a_child_that_never_predicts_ends(folders):
    run_program(ENDS_UNUSED, folders["encoder"])


POOLS = """
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

def probabilities(model, texts):
    return [a.probabilities.tobytes() for a in model.answer(texts, "full")]

if __name__ == "__main__":
    with ProcessPoolExecutor(1, get_context(sys.argv[4])) as pool:
        assert pool.submit(probabilities, model, texts).result() == ask()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_model_may_be_an_argument_of_another_process(folders, tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(BEGINNING.replace("model = opener", "model = __name__ == '__main__' and opener") + POOLS)
    command = [sys.executable, str(program), str(folders["encoder"]), "encoder", "2", method]
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# The threads call again and again, so that some come back from a call just when there is no interpreter any more.
ENDS = """
begun = threading.Barrier(4)

def work():
    begun.wait()
    while True:
        ask()

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
begun.wait()
time.sleep(0.2)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_the_interpreter_ends_while_daemon_threads_predict(folders, kind):
    assert run_program(ENDS, folders[kind], kind).stderr == ""


# Hooks that were there first come last: what they wait for must be answered.
ENDS_WITH_A_HOOK = """
import queue
given, answered = queue.Queue(), []

def work():
    while given.get():
        answered.append(ask(20))

def drain():
    given.put(True)
    given.put(False)
    worker.join()
    print(len(answered), answered[0] == ask(20))

worker = threading.Thread(target=work, daemon=True)
worker.start()
for _ in range(3):
    given.put(True)
"""


def test_calls_that_come_while_the_interpreter_ends_are_answered(folders):
    register = "import atexit; atexit.register(lambda: drain())\n"
    command = [sys.executable, "-c", register + BEGINNING + ENDS_WITH_A_HOOK, str(folders["encoder"]), "encoder", "3"]
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 True\n", "")


LIMITED = """
want = ask()
os.environ["TOKENIZERS_PARALLELISM"] = "false"
del model
model = opener.from_pretrained(folder, "cpu", threads=16, backend="native")
assert model.backend.threads == 16
limit_threads(int(sys.argv[4]) and len(os.listdir("/proc/self/task")) + int(sys.argv[4]))
assert ask() == want == ask()
print(model.backend.threads)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads where Linux lists them")
@pytest.mark.parametrize("more", [0, 2, 6])
def test_with_fewer_threads_than_asked_for_answers_are_the_same(folders, more):
    if more and os.getuid():
        pytest.skip("only root can be a user who runs nothing else")
    program = BEGINNING + LIMITED
    command = [sys.executable, "-c", program, str(folders["encoder"]), "encoder", "1", str(more)]
    done = subprocess.run(command, timeout=SECONDS, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{1 + more}\n"), done.stderr


UNREAD = """
limit_threads(1)
answers = ask()
print(len(answers) == 20 and ask() == answers)
"""


def test_texts_are_read_where_the_tokenizer_gets_no_threads(folders):
    environment = {"RAYON_NUM_THREADS": "4", "TOKENIZERS_PARALLELISM": "true"}
    for kind in ("static", "encoder"):
        assert run_program(UNREAD, folders[kind], kind, **environment).stdout == "True\n"


def test_a_task_that_throws_is_heard_when_the_others_are_done():
    team = native.core().kernels.team
    assert team(3, 50) == (50, False, 3)
    assert team(3, 50, 20) == (49, True, 3)
    assert team(1, 5, 0)[1:] == (True, 1)
