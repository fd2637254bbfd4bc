"""Runs other programs. Nothing else in this package starts a process."""

import subprocess

SHORT = 20  # seconds that a program may take which only sets something


class Failed(Exception):
    """A program ended with an error."""


def run(*command, timeout=SHORT, stdin=None):
    """Runs to the end; its standard output."""
    done = subprocess.run(
        [str(word) for word in command], input=stdin, capture_output=True, text=True, timeout=timeout
    )
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().partition("\n")[0]
        raise Failed(f"{' '.join(str(word) for word in command)}: {said}")
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
