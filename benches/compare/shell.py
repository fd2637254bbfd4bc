"""Runs other programs. Nothing else in this package starts a process."""

import os
import shutil
import signal
import subprocess
import sys

SHORT = 20  # seconds that a program may take which only sets something


class Failed(Exception):
    """A program ended with an error."""


def require(programs):
    """Ends with the remedy where rights or programs are missing; an end by SIGTERM cleans up from here on."""
    if os.geteuid() != 0:
        sys.exit("needs root, for network namespaces")
    if missing := [program for program in programs if not shutil.which(program)]:
        sys.exit(f"install these first: {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def run(*command, timeout=SHORT, stdin=None):
    """Runs to the end; its standard output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise Failed(f"{' '.join(words)}: did not end within {timeout} s")
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise Failed(f"{' '.join(words)}: {said}")
    return done.stdout


def start(*command, output=subprocess.DEVNULL, env=None):
    """Starts a program that runs beside us."""
    words = [str(word) for word in command]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=env)


def stop(process, patience=5):
    """Ends a program of ours, gently first."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(patience)
